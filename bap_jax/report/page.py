"""What a report says, before it is a page: sentences, tables and pictures, which HTML and Markdown then render alike."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bap_jax.errors import SettingError
from bap_jax.report.measures import (
    ArmMeasures,
    Grid,
    Interval,
    aer_difference,
    aer_score,
    bootstrap,
    budget_sensitivity,
    cell_interval,
    cell_means,
    common_cells,
    measure,
    uniform_arms,
)
from bap_jax.report.rows import CLEAN, Row, Scene, arms_of, format_epsilon, format_sparsity, in_order, sparsity_of
from bap_jax.report.table import MISSING, TONES, Cell, Table, interval_text, percent, percent_cell

SIZE_COLUMNS = {
    "num_parameters": "parameters",
    "nonzero": "non-zero parameters",
    "compression_ratio": "compression ratio",
    "bytes_dense": "bytes on disk, dense",
    "bytes": "bytes on disk, packed",
    "flops_dense": "FLOPs, dense",
    "flops_sparse": "FLOPs, sparse",
}
DEFINITIONS = {
    "AER score": "accuracy–efficiency–robustness, this project's own definition: the mean accuracy over the grid of sparsities "
    "and budgets (ε = 0, the clean images, included), over the cells that every arm has.",
    "Stability": "the standard deviation over pruning processes at each sparsity and ε, averaged over the same cells, in points. "
    "Lower is steadier; it needs two processes.",
    "Area": "the area under the security curve (accuracy over ε) divided by the range of ε, averaged over sparsities.",
    "Robust accuracy": "the share of images classified correctly under the named attack, "
    "averaged over the sparsities and all ε > 0.",
    "Budget sensitivity": "the largest minus the smallest AER score among the arms that train with a uniform budget.",
    "Attack": "every accuracy belongs to one attack in one norm, which is named beside it; no number mixes two. “Worst of a, b” "
    "is an attack of its own: an image counts as right only if it is right under each of them. An attack that fails proves "
    "nothing: robust accuracy is an upper bound.",
    "Distance": "of a minimal-norm attack: the norm of the smallest perturbation it found that changes the answer, over the "
    "images that are right without an attack. An upper bound of the true distance.",
    "Interval": "95 % percentile bootstrap over seeds, the same resampled seeds for every cell; in the bands of the security "
    "curves over seeds and processes. Not defined with one seed and then shown as “–”. With few seeds it is too narrow: a range, "
    "not a test.",
    "“–”": "not measured, or not defined. It is never counted as 0.",
}
MAX_SUMMARIES = 3  # scenes that are summed up in full
PLURALS = {"sparsity": "sparsities", "pruning process": "pruning processes"}


class Check(NamedTuple):
    """A check on the evaluation: ``status`` is passed, warned or failed."""

    name: str
    status: str
    value: str
    advice: str


class Picture(NamedTuple):
    """A picture: ``draw()`` gives the figure; ``name`` is its file's, without the ending."""

    name: str
    caption: str
    alt: str
    draw: Callable[[], Any]


class Section(NamedTuple):
    """A heading and what stands under it."""

    title: str
    paragraphs: tuple[str, ...] = ()
    lead: tuple[Table, ...] = ()  # stands above the pictures
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    more: tuple[Table, ...] = ()  # details, which a page shows on demand and leaves out if there is no room


class Report(NamedTuple):
    """A whole report."""

    title: str
    summary: tuple[str, ...]
    checks: tuple[Check, ...]
    sections: tuple[Section, ...]


def as_checks(checks: Sequence[Mapping[str, Any]] | None) -> tuple[Check, ...]:
    """Checks from dicts with ``name``, ``status`` and, if one likes, ``value`` and ``advice``.

    Raises:
      SettingError: a status other than passed, warned and failed.
    """
    found = tuple(
        Check(*(str(check.get(k, "") if check.get(k) is not None else "") for k in Check._fields)) for check in checks or ()
    )
    for check in found:
        if check.status not in TONES:
            raise SettingError(f"checks[{check.name!r}].status", check.status, "passed, warned or failed")
    return found


def _points(value: float) -> str:
    points = f"{100 * value:.1f}"
    return f"{points} point" if points == "1.0" else f"{points} points"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else PLURALS.get(noun, noun + 's')}"


def summarise(grid: Grid, measures: Mapping[str, ArmMeasures], uniform: Sequence[str]) -> list[str]:
    """The findings of one scene in plain sentences; every robust accuracy names its attack.

    Args:
      grid: the scene.
      measures: of its arms.
      uniform: the arms with a uniform budget.
    """
    scored = [arm for arm in grid.arms if not math.isnan(measures[arm].aer_score.value)]
    if not scored:
        return [f"{grid.scene.label}: no cell was measured for every arm, so that the arms cannot be compared by a score."]
    ranked = sorted(scored, key=lambda arm: -measures[arm].aer_score.value)
    sentences = [_best_sentence(grid, measures, ranked), _example_sentence(grid, ranked[0])]
    sentences += _stability_sentences(grid, measures, ranked[0]) + _sensitivity_sentences(grid, measures, uniform)
    cells = common_cells(grid)
    if not cells.all():
        sentences.append(
            f"{(~cells).sum()} of {_count(cells.size, 'cell')} (sparsity × ε) were not measured for every arm; "
            f"scores are over the other {cells.sum()}."
        )
    return [sentence.replace(" %", "\u00a0%") for sentence in sentences if sentence]


def _best_sentence(grid: Grid, measures: Mapping[str, ArmMeasures], ranked: Sequence[str]) -> str:
    best, score = ranked[0], measures[ranked[0]].aer_score
    seeds = _count(len(grid.seeds), "seed")
    around = f"95 % interval {interval_text(score)}, {seeds}" if score.known else f"{seeds}: no interval"
    size = f"{_count(len(grid.sparsities), 'sparsity')} × {_count(len(grid.epsilons), 'budget')}"
    rank = "has the best AER score" if len(ranked) > 1 else "has this AER score"
    text = (
        f"On {grid.scene.data} with {grid.scene.model}, “{best}” {rank}: {percent(score.value)} % ({around}), "
        f"the mean accuracy over {size} of {grid.scene.attack_label}, clean images included."
    )
    if len(ranked) < 2:
        return text
    gap = aer_difference(grid, best, ranked[1])
    text += f" That is {_points(gap.value)} above the next arm, “{ranked[1]}”"
    if not gap.known:
        return text + "."
    text += f" (95 % interval of the difference {interval_text(gap)})"
    return text + (", so that these seeds do not tell the two apart." if gap.low <= 0 else ".")


def _example_sentence(grid: Grid, arm: str) -> str:
    means = cell_means(grid.accuracy)[grid.arms.index(arm)][-1]
    attacked = [i for i, epsilon in enumerate(grid.epsilons) if epsilon > 0 and not math.isnan(means[i])]
    if 0.0 not in grid.epsilons or math.isnan(means[grid.epsilons.index(0.0)]) or not attacked:
        return ""
    middle = attacked[len(attacked) // 2]
    clean = percent(means[grid.epsilons.index(0.0)])
    return (
        f"At {format_sparsity(grid.sparsities[-1])} sparsity “{arm}” classifies {clean} % of the clean images correctly, and "
        f"{percent(means[middle])} % under {grid.scene.attack_label} at ε = {format_epsilon(grid.epsilons[middle])}."
    )


def _stability_sentences(grid: Grid, measures: Mapping[str, ArmMeasures], best: str) -> list[str]:
    steady = {arm: measures[arm].stability.value for arm in grid.arms if not math.isnan(measures[arm].stability.value)}
    if len(steady) < 2:
        return []
    first = min(steady, key=lambda arm: steady[arm])
    processes = _count(len(grid.processes), "pruning process")
    text = f"Over {processes} “{first}” is the steadiest arm: accuracies spread by {_points(steady[first])} (standard deviation)"
    return [text + ("." if first == best or best not in steady else f"; “{best}” by {_points(steady[best])}.")]


def _sensitivity_sentences(grid: Grid, measures: Mapping[str, ArmMeasures], uniform: Sequence[str]) -> list[str]:
    scores = {arm: measures[arm].aer_score.value for arm in grid.arms if arm in uniform}
    spread = budget_sensitivity(grid, uniform)
    if math.isnan(spread.value):
        return []
    low, high = min(scores, key=lambda arm: scores[arm]), max(scores, key=lambda arm: scores[arm])
    around = f" (95 % interval {interval_text(spread)})" if spread.known else ""
    return [
        f"Budget sensitivity: among the {len(scores)} uniform budgets the AER score differs by {_points(spread.value)}{around}, "
        f"from “{low}” ({percent(scores[low])} %) to “{high}” ({percent(scores[high])} %)."
    ]


def scores_table(grid: Grid, measures: Mapping[str, ArmMeasures]) -> Table:
    """One line per arm: AER score, its interval, clean and robust accuracy, area, stability."""
    columns = (
        "arm",
        "AER score, %",
        "95 % interval",
        "clean, %",
        "mean over ε > 0, %",
        "area, %",
        "stability, points",
        "interval",
    )
    values = [measures[arm] for arm in grid.arms]
    kinds = ("aer_score", "clean", "robust", "security_area", "stability")
    signs = (1, 1, 1, 1, -1)
    best = [_best([sign * getattr(m, kind).value for m in values]) for kind, sign in zip(kinds, signs, strict=True)]
    rows = []
    for i, (arm, m) in enumerate(zip(grid.arms, values, strict=True)):
        score, clean, robust, area, steady = (
            percent_cell(interval, strong=i in chosen)._replace(detail="")
            for interval, chosen in zip((m.aer_score, m.clean, m.robust, m.security_area, m.stability), best, strict=True)
        )
        rows.append((Cell(arm), score, _interval_cell(m.aer_score), clean, robust, area, steady, _interval_cell(m.stability)))
    note = "Accuracies in per cent, higher is better; stability in points, lower is steadier. Bold: best of its column."
    return Table(f"Scores, {grid.scene.label}", columns, tuple(rows), note)


def shown_arms(grid: Grid, measures: Mapping[str, ArmMeasures], most: int) -> Grid:
    """The grid of the arms that a picture shows: all of them, or the ``most`` with the best AER scores, in the grid's order."""
    score = {arm: measures[arm].aer_score.value for arm in grid.arms}
    ranked = sorted(grid.arms, key=lambda arm: math.inf if math.isnan(score[arm]) else -score[arm])
    chosen = [i for i, arm in enumerate(grid.arms) if arm in ranked[:most]]
    return grid._replace(arms=tuple(grid.arms[i] for i in chosen), accuracy=grid.accuracy[chosen])


def shown_sparsities(grid: Grid, most: int) -> Grid:
    """The grid of the sparsities that a picture shows: all of them, or ``most`` evenly spread, the first and last included."""
    chosen = np.unique(np.linspace(0, len(grid.sparsities) - 1, min(most, len(grid.sparsities))).round().astype(int))
    return grid._replace(sparsities=tuple(grid.sparsities[i] for i in chosen), accuracy=grid.accuracy[:, chosen])


def shown_sentence(part: Grid, grid: Grid) -> str:
    """What of a grid a picture leaves out, in words; "" if nothing."""
    said = []
    if len(part.arms) < len(grid.arms):
        said.append(f"the {len(part.arms)} of {len(grid.arms)} arms with the best AER score")
    if len(part.sparsities) < len(grid.sparsities):
        said.append(f"{len(part.sparsities)} of {len(grid.sparsities)} sparsities")
    return f" Drawn: {' and '.join(said)}; the tables hold all." if said else ""


def overview_table(
    rows: Sequence[Row], grids: Sequence[Grid], measures: Sequence[Mapping[str, ArmMeasures]], *, best_only: bool = False
) -> Table:
    """One line per attack and arm, so that attacks can be compared; none is averaged with another.

    Args:
      rows: of which the numbers of images are told.
      grids: the scenes.
      measures: of the arms of each.
      best_only: of each scene only the arm with the best AER score.
    """
    lines = []
    for grid, measured in zip(grids, measures, strict=True):
        scene, counts = grid.scene, _image_counts(rows, grid.scene)[1]
        budgets = [format_epsilon(epsilon) for epsilon in grid.epsilons]
        said = ", ".join(budgets) if len(budgets) < 5 else f"{len(budgets)} from {budgets[0]} to {budgets[-1]}"
        for arm in shown_arms(grid, measured, 1).arms if best_only else grid.arms:
            m = measured[arm]
            numbers = (percent_cell(value) for value in (m.clean, m.robust, m.security_area, m.aer_score))
            lines.append(
                (Cell(scene.attack_label), Cell(scene.data), Cell(scene.model), Cell(arm), Cell(said), Cell(counts), *numbers)
            )
    columns = ("attack", "data", "model", "arm", "ε", "images", "clean, %", "mean over ε > 0, %", "area, %", "AER score, %")
    note = "Each line is one attack alone. Means are over different ε where the attacks were run at different ones."
    title = "The arm with the best AER score under each attack" if best_only else "Scores by attack"
    return Table(title, columns, tuple(lines), note, num_labels=6)


def _interval_cell(interval: Interval) -> Cell:
    return Cell(interval_text(interval), interval.low if interval.known else None)


def _best(values: Sequence[float]) -> set[int]:
    there = [value for value in values if not math.isnan(value)]
    return {i for i, value in enumerate(values) if value == max(there)} if len(there) > 1 else set()


def cell_tables(grid: Grid) -> list[Table]:
    """One table per sparsity: arms × budgets, each cell with its interval over seeds, and the mean of the row."""
    tables = []
    for s, sparsity in enumerate(grid.sparsities):
        chosen = common_cells(grid)[s : s + 1]
        cells = [[cell_interval(cell) for cell in accuracy[s]] for accuracy in grid.accuracy]
        means = [bootstrap(accuracy[s : s + 1], lambda x, chosen=chosen: aer_score(x, chosen)) for accuracy in grid.accuracy]  # type: ignore[misc]
        lines = [[*line, mean] for line, mean in zip(cells, means, strict=True)]
        best = [_best([line[i].value for line in lines]) for i in range(len(lines[0]))]
        rows = tuple(
            (Cell(arm), *(percent_cell(cell, strong=i in best[j]) for j, cell in enumerate(line)))
            for i, (arm, line) in enumerate(zip(grid.arms, lines, strict=True))
        )
        columns = ("arm", *("clean" if e == 0 else f"ε = {format_epsilon(e)}" for e in grid.epsilons), "mean")
        tables.append(
            Table(
                f"{format_sparsity(sparsity)} sparse: accuracy under {grid.scene.attack_label}, %",
                columns,
                rows,
                _cell_note(grid) + ("" if chosen.all() else " The last column is over the ε that every arm has."),
            )
        )
    return tables


def _cell_note(grid: Grid) -> str:
    average = f"Mean over {_count(len(grid.processes), 'pruning process')} and {_count(len(grid.seeds), 'seed')}"
    return average + ("; small: 95 % bootstrap interval over seeds." if len(grid.seeds) > 1 else "; one seed has no interval.")


def images_sentence(rows: Sequence[Row], scene: Scene) -> str:
    """How many images the accuracies of a scene are measured on, clean and attacked."""
    parts = [
        f"{text} {number}"
        for text, number in zip(("clean", scene.attack_label), _image_counts(rows, scene), strict=True)
        if number
    ]
    return "Images per accuracy: " + ", ".join(parts) + "." if parts else ""


def _image_counts(rows: Sequence[Row], scene: Scene) -> tuple[str, str]:
    """How many images a scene's clean and attacked accuracies are measured on; the attack's own ε = 0 counts as clean."""
    here = [r for r in rows if str(r["data"]) == scene.data and str(r["model"]) == scene.model]
    mine = [r for r in here if Scene(*(str(r[k] or "") for k in Scene._fields)) == scene and scene.attack != CLEAN]
    own = [r for r in mine if float(r["epsilon"]) == 0]
    starts = own or [r for r in here if str(r["attack"]) == CLEAN]

    def numbers(chosen: Sequence[Row]) -> str:
        return " or ".join(f"{n:,}" for n in sorted({int(r["num_examples"]) for r in chosen if r["num_examples"] is not None}))

    return numbers(starts), numbers([r for r in mine if float(r["epsilon"]) > 0])


def sizes_of(rows: Sequence[Row], grid: Grid) -> dict[tuple[str, float], float] | None:
    """(arm, sparsity) → mean number of non-zero parameters, or None if some arm does not say."""
    mine = [r for r in rows if str(r["data"]) == grid.scene.data and str(r["model"]) == grid.scene.model]
    if not mine or any(r.get("nonzero") is None for r in mine):
        return None
    found: dict[tuple[str, float], list[float]] = {}
    for row in mine:
        found.setdefault((str(row["arm"]), sparsity_of(row)), []).append(row["nonzero"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def sizes_table(rows: Sequence[Row]) -> Table | None:
    """Efficiency in real numbers, from whichever columns of :data:`SIZE_COLUMNS` the rows have; None if they have none."""
    names = [name for name in SIZE_COLUMNS if any(row.get(name) is not None for row in rows)]
    if not names:
        return None
    groups: dict[tuple[str, str, str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["data"]), str(row["model"]), str(row["arm"]), sparsity_of(row)), []).append(row)
    lines = []
    for (data, model, arm, sparsity), group in groups.items():
        labels = (Cell(data), Cell(model), Cell(arm), Cell(format_sparsity(sparsity), sparsity))
        lines.append((*labels, *(_size_cell([row[name] for row in group if row.get(name) is not None]) for name in names)))
    columns = ("data", "model", "arm", "sparsity", *(SIZE_COLUMNS[name] for name in names))
    return Table("Size", columns, tuple(lines), "Means over processes and seeds.", num_labels=4)


def _size_cell(values: Sequence[float]) -> Cell:
    values = [value for value in values if math.isfinite(value)]  # nothing kept: no ratio
    if not values:
        return Cell(MISSING)
    mean = float(np.mean(values))
    return Cell(f"{mean:,.2f}".rstrip("0").rstrip(".") if mean < 1000 else f"{mean:,.0f}", mean)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with their values as text.

    Example:
      >>> flatten({"attack": {"num_steps": 20}, "seed": 0})
      [('attack.num_steps', '20'), ('seed', '0')]
    """
    pairs: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs


def pairs_table(title: str, pairs: Mapping[str, Any]) -> Table:
    """Names and values, both as text."""
    return Table(title, ("name", "value"), tuple((Cell(name), Cell(value)) for name, value in flatten(pairs)), num_labels=2)


def checks_table(checks: Sequence[Check], title: str = "Checks") -> Table:
    """Checks with their status as a word (and a colour)."""
    order = {"failed": 0, "warned": 1, "passed": 2}
    rows = sorted(checks, key=lambda check: order[check.status])
    cells = tuple(
        (Cell(c.name), Cell(c.status, order[c.status], tone=c.status, strong=c.status == "failed"), Cell(c.value), Cell(c.advice))
        for c in rows
    )
    return Table(title, ("check", "status", "value", "advice"), cells, num_labels=4)


def checks_sentence(checks: Sequence[Check]) -> str:
    """How the checks went, or "" if there were none."""
    if not checks:
        return ""
    count = {status: sum(check.status == status for check in checks) for status in TONES}
    failed = ", ".join(check.name for check in checks if check.status == "failed")
    if failed:
        return f"Do not rely on these numbers yet: {_count(count['failed'], 'check')} failed ({failed})."
    warned = ", ".join(check.name for check in checks if check.status == "warned")
    if warned:
        return f"Of {_count(len(checks), 'check')} none failed; {count['warned']} warned ({warned})."
    return f"All {_count(len(checks), 'check')} passed." if len(checks) > 1 else "The check passed."


def slug(text: str) -> str:
    """Letters, digits and hyphens only, for a file's name.

    Example:
      >>> slug("PGD-20 (L∞)")
      'pgd-20-l'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def scene_names(grids: Sequence[Grid]) -> list[str]:
    """What each scene's pictures are called after their kind: nothing for the first, a suffix for the others."""
    return [
        "" if i == 0 else f"-{i + 1}-{slug(f'{g.scene.data}-{g.scene.model}-{g.scene.attack}-{g.scene.norm}')}"
        for i, g in enumerate(grids)
    ]


def results(
    rows: Sequence[Row], grids: Sequence[Grid], num_resamples: int
) -> tuple[list[list[str]], list[dict[str, ArmMeasures]]]:
    """The sentences and the measures of each scene."""
    uniform = uniform_arms(rows)
    measures = [measure(grid, num_resamples=num_resamples) for grid in grids]
    return [summarise(grid, m, uniform) for grid, m in zip(grids, measures, strict=True)], measures


def known_arms(rows: Sequence[Row], *others: Mapping[str, Any] | None) -> list[str]:
    """The arms of the rows, then whatever other names histories and layers bring."""
    return in_order([*arms_of(rows), *(name for other in others for name in other or {})])
