"""The tables of a report: scores, cells, sizes and settings, and which arms a table or picture shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bap_jax.report.measures import (
    ArmMeasures,
    Grid,
    Interval,
    aer_score,
    bootstrap,
    cell_interval,
    common_cells,
    regret,
)
from bap_jax.report.rows import Row, format_epsilon, format_sparsity, sparsity_of
from bap_jax.report.sentences import counted, image_counts
from bap_jax.report.table import MISSING, Cell, Table, interval_text, percent_cell, without_empty

SIZE_COLUMNS = {
    "num_parameters": "parameters",
    "nonzero": "non-zero parameters",
    "compression_ratio": "compression ratio",
    "bytes_dense": "bytes on disk, dense",
    "bytes": "bytes on disk, packed",
    "flops_dense": "FLOPs, dense",
    "flops_sparse": "FLOPs, sparse",
    "weight_bits": "bits of a weight",
    "bops_dense": "BOPs, dense",
    "bops_sparse": "BOPs, sparse",
}
COST_COLUMNS = {
    "passes": "passes per image",
    "passes_search": "of the search",
    "passes_attack": "of the attack",
    "passes_training": "of the training",
    "train_seconds": "seconds",
    "train_images_per_second": "images per second",
    "mask_distance": "mask distance, per epoch",
    "late_mask_distance": "mask distance, last tenth",
    "peak_bytes_process": "peak bytes, process",
    "peak_bytes_device": "peak bytes, device",
}


def scores_table(grid: Grid, measures: Mapping[str, ArmMeasures], folders: Mapping[str, str] | None = None) -> Table:
    """One line per arm, the best score first: AER score, its interval, clean and robust accuracy, area, stability, regret.

    Args:
      grid: the comparison.
      measures: of its arms.
      folders: arm → where its runs lie.
    """
    columns = (
        "arm",
        "AER score, %",
        "95 % interval",
        "clean, %",
        "mean over ε > 0, %",
        "area, %",
        "stability, points",
        "interval",
        "regret, points",
    )
    grid = by_score(grid, measures)
    values = [measures[arm] for arm in grid.arms]
    kinds = ("aer_score", "clean", "robust", "security_area", "stability")
    signs = (1, 1, 1, 1, -1)
    best = [_best([sign * getattr(m, kind).value for m in values]) for kind, sign in zip(kinds, signs, strict=True)]
    lost = [Interval(regret(grid, arm, num_resamples=1).value) for arm in grid.arms]
    least = _best([-interval.value for interval in lost])
    rows = []
    for i, (arm, m) in enumerate(zip(grid.arms, values, strict=True)):
        score, clean, robust, area, steady = (
            percent_cell(interval, strong=i in chosen)._replace(detail="")
            for interval, chosen in zip((m.aer_score, m.clean, m.robust, m.security_area, m.stability), best, strict=True)
        )
        spread, given_up = _interval_cell(m.stability), percent_cell(lost[i], strong=i in least)._replace(detail="")
        name = Cell(arm, link=(folders or {}).get(arm, ""))
        rows.append((name, score, _interval_cell(m.aer_score), clean, robust, area, steady, spread, given_up))
    note = "Accuracies in per cent, higher is better; stability and regret in points, lower is better. Bold: best of its column."
    return without_empty(Table(f"Scores, {grid.comparison.label}", columns, tuple(rows), note))


def overview_table(
    rows: Sequence[Row], grids: Sequence[Grid], measures: Sequence[Mapping[str, ArmMeasures]], *, best_only: bool = False
) -> Table:
    """One line per attack and arm, so that attacks can be compared; none is averaged with another.

    Args:
      rows: of which the numbers of images are told.
      grids: the comparisons.
      measures: of the arms of each.
      best_only: of each comparison only the arm with the best AER score.
    """
    lines = []
    for grid, measured in zip(grids, measures, strict=True):
        comparison, counts = grid.comparison, image_counts(rows, grid.comparison)[1]
        budgets = [format_epsilon(epsilon) for epsilon in grid.epsilons]
        said = ", ".join(budgets) if len(budgets) < 5 else f"{len(budgets)} from {budgets[0]} to {budgets[-1]}"
        for arm in shown_arms(grid, measured, 1).arms if best_only else grid.arms:
            m = measured[arm]
            numbers = (percent_cell(value) for value in (m.clean, m.robust, m.security_area, m.aer_score))
            lines.append(
                (
                    Cell(comparison.attack_label),
                    Cell(comparison.data),
                    Cell(comparison.model),
                    Cell(arm),
                    Cell(said),
                    Cell(counts),
                    *numbers,
                )
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
                f"{format_sparsity(sparsity)} sparse: accuracy under {grid.comparison.attack_label}, %",
                columns,
                rows,
                _cell_note(grid) + ("" if chosen.all() else " The last column is over the ε that every arm has."),
            )
        )
    return tables


def _cell_note(grid: Grid) -> str:
    average = f"Mean over {counted(len(grid.processes), 'pruning process')} and {counted(len(grid.seeds), 'seed')}"
    return average + ("; small: 95 % bootstrap interval over seeds." if len(grid.seeds) > 1 else "; one seed has no interval.")


def sizes_of(rows: Sequence[Row], grid: Grid) -> dict[tuple[str, float], float] | None:
    """(arm, sparsity) → mean number of non-zero parameters, or None if some arm does not say."""
    mine = [r for r in rows if str(r["data"]) == grid.comparison.data and str(r["model"]) == grid.comparison.model]
    if not mine or any(r.get("nonzero") is None for r in mine):
        return None
    found: dict[tuple[str, float], list[float]] = {}
    for row in mine:
        found.setdefault((str(row["arm"]), sparsity_of(row)), []).append(row["nonzero"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def sizes_table(rows: Sequence[Row]) -> Table | None:
    """Efficiency in real numbers, one line per sparsity, from whichever columns of :data:`SIZE_COLUMNS` the rows have; None if
    they have none. Where arms differ, from the smallest to the largest.
    """
    note = "Means over processes and seeds; where arms differ, from the smallest to the largest."
    return _numbers_table("Size", rows, SIZE_COLUMNS, note, ("data", "model", "sparsity"))


def cost_table(rows: Sequence[Row]) -> Table | None:
    """What training cost, one line per arm, from whichever of :data:`COST_COLUMNS` the rows have; None if there are none."""
    note = "Passes per image and step, a backward pass counting as two forward ones. Means over sparsities, processes and seeds."
    return _numbers_table("Cost of training", rows, COST_COLUMNS, note, ("data", "model", "arm"))


def _numbers_table(title: str, rows: Sequence[Row], titles: Mapping[str, str], note: str, by: Sequence[str]) -> Table | None:
    names = [name for name in titles if any(row.get(name) is not None for row in rows)]
    if not names:
        return None
    shown = [name for name in by if name in ("sparsity", "arm") or len({str(row[name]) for row in rows}) > 1]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(sparsity_of(row) if name == "sparsity" else str(row[name]) for name in by), []).append(row)
    lines = []
    for key, group in groups.items():
        labels = [
            Cell(format_sparsity(value), value) if name == "sparsity" else Cell(value)
            for name, value in zip(by, key, strict=True)
            if name in shown
        ]
        lines.append((*labels, *(_size_cell(name, group) for name in names)))
    columns = (*shown, *(titles[name] for name in names))
    return without_empty(Table(title, columns, tuple(lines), note, num_labels=len(shown)))


def _size_cell(name: str, rows: Sequence[Row]) -> Cell:
    """The mean of each arm; one number where they are alike, else the smallest and the largest."""
    arms: dict[str, list[float]] = {}
    for row in rows:
        if row.get(name) is not None and math.isfinite(row[name]):  # nothing kept: no ratio
            arms.setdefault(str(row["arm"]), []).append(float(row[name]))
    means = [float(np.mean(values)) for values in arms.values()]
    if not means:
        return Cell(MISSING)
    mean = float(np.mean(means))
    if max(means) - min(means) <= 1e-3 * abs(mean):  # rounding of the masks
        return Cell(_number(mean), mean)
    return Cell(f"{_number(min(means))} to {_number(max(means))}", mean)


def _number(value: float) -> str:
    if 0 < value < 1:
        return f"{value:.3g}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if value < 1000 else f"{value:,.0f}"


def dotted(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with their values as text.

    Example:
      >>> dotted({"attack": {"num_steps": 20}, "seed": 0})
      [('attack.num_steps', '20'), ('seed', '0')]
    """
    pairs: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            pairs += dotted(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs


def pairs_table(title: str, pairs: Mapping[str, Any]) -> Table:
    """Names and values, both as text."""
    return Table(title, ("name", "value"), tuple((Cell(name), Cell(value)) for name, value in dotted(pairs)), num_labels=2)


def shown_arms(grid: Grid, measures: Mapping[str, ArmMeasures], most: int) -> Grid:
    """The grid of the arms that a picture shows: all of them, or the ``most`` with the best AER scores, in the grid's order."""
    score = {arm: measures[arm].aer_score.value for arm in grid.arms}
    ranked = sorted(grid.arms, key=lambda arm: math.inf if math.isnan(score[arm]) else -score[arm])
    chosen = [i for i, arm in enumerate(grid.arms) if arm in ranked[:most]]
    return grid._replace(arms=tuple(grid.arms[i] for i in chosen), accuracy=grid.accuracy[chosen])


def by_score(grid: Grid, measures: Mapping[str, ArmMeasures]) -> Grid:
    """The grid with its arms in the order of their AER scores, the best first and those without one last."""
    score = [measures[arm].aer_score.value for arm in grid.arms]
    order = sorted(range(len(score)), key=lambda i: math.inf if math.isnan(score[i]) else -score[i])
    return grid._replace(arms=tuple(grid.arms[i] for i in order), accuracy=grid.accuracy[order])


def shown_sparsities(grid: Grid, most: int) -> Grid:
    """The grid of the sparsities that a picture shows: all of them, or ``most`` evenly spread, the first and last included."""
    chosen = np.unique(np.linspace(0, len(grid.sparsities) - 1, min(most, len(grid.sparsities))).round().astype(int))
    return grid._replace(sparsities=tuple(grid.sparsities[i] for i in chosen), accuracy=grid.accuracy[:, chosen])
