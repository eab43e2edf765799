"""What a report says in words; every robust accuracy names its attack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bap_jax.report.measures import (
    ArmMeasures,
    Grid,
    aer_difference,
    budget_sensitivity,
    cell_means,
    common_cells,
    measure,
    uniform_arms,
)
from bap_jax.report.rows import CLEAN, Comparison, Row, format_epsilon, format_sparsity
from bap_jax.report.table import interval_text, percent

PLURALS = {"sparsity": "sparsities", "pruning process": "pruning processes"}


def summarise(grid: Grid, measures: Mapping[str, ArmMeasures], uniform: Sequence[str]) -> list[str]:
    """The findings of one comparison in plain sentences; every robust accuracy names its attack.

    Args:
      grid: the comparison.
      measures: of its arms.
      uniform: the arms with a uniform budget.
    """
    scored = [arm for arm in grid.arms if not math.isnan(measures[arm].aer_score.value)]
    if not scored:
        return [f"{grid.comparison.label}: no cell was measured for every arm, so that the arms cannot be compared by a score."]
    ranked = sorted(scored, key=lambda arm: -measures[arm].aer_score.value)
    sentences = [_best_sentence(grid, measures, ranked), _example_sentence(grid, ranked[0])]
    sentences += _stability_sentences(grid, measures, ranked[0]) + _sensitivity_sentences(grid, measures, uniform)
    cells = common_cells(grid)
    if not cells.all():
        sentences.append(
            f"{(~cells).sum()} of {counted(cells.size, 'cell')} (sparsity × ε) were not measured for every arm; "
            f"scores are over the other {cells.sum()}."
        )
    return [sentence.replace(" %", "\u00a0%") for sentence in sentences if sentence]


def _best_sentence(grid: Grid, measures: Mapping[str, ArmMeasures], ranked: Sequence[str]) -> str:
    best, score = ranked[0], measures[ranked[0]].aer_score
    seeds = counted(len(grid.seeds), "seed")
    around = f"95 % interval {interval_text(score)}, {seeds}" if score.known else f"{seeds}: no interval"
    size = f"{counted(len(grid.sparsities), 'sparsity')} × {counted(len(grid.epsilons), 'budget')}"
    rank = "has the best AER score" if len(ranked) > 1 else "has this AER score"
    text = (
        f"On {grid.comparison.data} with {grid.comparison.model}, “{best}” {rank}: {percent(score.value)} % ({around}), "
        f"the mean accuracy over {size} of {grid.comparison.attack_label}, clean images included."
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
        f"{percent(means[middle])} % under {grid.comparison.attack_label} at ε = {format_epsilon(grid.epsilons[middle])}."
    )


def _stability_sentences(grid: Grid, measures: Mapping[str, ArmMeasures], best: str) -> list[str]:
    steady = {arm: measures[arm].stability.value for arm in grid.arms if not math.isnan(measures[arm].stability.value)}
    if len(steady) < 2:
        return []
    first = min(steady, key=lambda arm: steady[arm])
    processes = counted(len(grid.processes), "pruning process")
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


def shown_sentence(part: Grid, grid: Grid) -> str:
    """What of a grid a picture leaves out, in words; "" if nothing."""
    said = []
    if len(part.arms) < len(grid.arms):
        said.append(f"the {len(part.arms)} of {len(grid.arms)} arms with the best AER score")
    if len(part.sparsities) < len(grid.sparsities):
        said.append(f"{len(part.sparsities)} of {len(grid.sparsities)} sparsities")
    return f" Drawn: {' and '.join(said)}; the tables hold all." if said else ""


def images_sentence(rows: Sequence[Row], comparison: Comparison) -> str:
    """How many images the accuracies of a comparison are measured on, clean and attacked."""
    parts = [
        f"{text} {number}"
        for text, number in zip(("clean", comparison.attack_label), image_counts(rows, comparison), strict=True)
        if number
    ]
    return "Images per accuracy: " + ", ".join(parts) + "." if parts else ""


def image_counts(rows: Sequence[Row], comparison: Comparison) -> tuple[str, str]:
    """How many images a comparison's clean and attacked accuracies are measured on; the attack's own ε = 0 counts as clean."""
    here = [r for r in rows if str(r["data"]) == comparison.data and str(r["model"]) == comparison.model]
    mine = [
        r for r in here if Comparison(*(str(r[k] or "") for k in Comparison._fields)) == comparison and comparison.attack != CLEAN
    ]
    own = [r for r in mine if float(r["epsilon"]) == 0]
    starts = own or [r for r in here if str(r["attack"]) == CLEAN]

    def numbers(chosen: Sequence[Row]) -> str:
        return " or ".join(f"{n:,}" for n in sorted({int(r["num_examples"]) for r in chosen if r["num_examples"] is not None}))

    return numbers(starts), numbers([r for r in mine if float(r["epsilon"]) > 0])


def results(
    rows: Sequence[Row], grids: Sequence[Grid], num_resamples: int
) -> tuple[list[list[str]], list[dict[str, ArmMeasures]]]:
    """The sentences and the measures of each comparison."""
    uniform = uniform_arms(rows)
    measures = [measure(grid, num_resamples=num_resamples) for grid in grids]
    return [summarise(grid, m, uniform) for grid, m in zip(grids, measures, strict=True)], measures


def _points(value: float) -> str:
    points = f"{100 * value:.1f}"
    return f"{points} point" if points == "1.0" else f"{points} points"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not one.

    Example:
      >>> counted(1, "seed"), counted(2, "sparsity")
      ('1 seed', '2 sparsities')
    """
    return f"{number} {noun if number == 1 else PLURALS.get(noun, noun + 's')}"
