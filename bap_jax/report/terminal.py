"""A report for the terminal: the sentences, and one table that fits its width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bap_jax.report.checks import as_checks, checks_sentence
from bap_jax.report.measures import ArmMeasures, Grid, cell_means, make_grid
from bap_jax.report.page import MAX_SUMMARIES
from bap_jax.report.rows import Row, check_rows, comparisons_of, format_epsilon, format_sparsity
from bap_jax.report.sentences import results
from bap_jax.report.table import Cell, Table, percent, to_rich

GAP = 2  # between columns


def print_report(
    rows: Sequence[Row],
    console: Console | None = None,
    *,
    checks: Sequence[Mapping[str, Any]] | None = None,
    num_resamples: int = 1000,
) -> None:
    """Print the result: a table per attack (arms × sparsities, with as many budgets as fit), then the findings in words
    (of more than three attacks the first finding of each).

    Args:
      rows: long-form rows, see :mod:`bap_jax.report.rows`.
      console: where to; a new rich console if None. Its width decides how many budgets are shown.
      checks: dicts with name, status (passed, warned, failed), value and advice; those that did not pass are listed.
      num_resamples: draws of the bootstrap.

    Raises:
      SettingError: rows that no report can be made of.
    """
    check_rows(rows)
    named = as_checks(checks)
    console = console or Console()
    grids = [make_grid(rows, comparison) for comparison in comparisons_of(rows)]
    sentences, measures = results(rows, grids, num_resamples)
    for grid, m in zip(grids, measures, strict=True):
        for table in screen_tables(grid, m, console.width):
            console.print(to_rich(table))
    for said in sentences:
        for sentence in said if len(sentences) <= MAX_SUMMARIES else said[:1]:
            console.print(Text(sentence))
    for check in named:
        if check.status != "passed":
            style = "bold red" if check.status == "failed" else "yellow"
            console.print(Text(f"{check.status}: {check.name} = {check.value}. {check.advice}", style=style))
    if named:
        console.print(Text(checks_sentence(named)))


def screen_tables(grid: Grid, measures: Mapping[str, ArmMeasures], width: int) -> list[Table]:
    """The tables for a terminal of ``width`` columns.

    Arms are rows. Each sparsity shows clean, every ε and their mean if that fits; else clean, two budgets and the mean; else
    clean and mean. Sparsities that do not fit beside each other go into further tables. The last table ends with AER score and
    stability.
    """
    label = max(cell_len(text) for text in (*grid.arms, "arm")) + 1
    room = width - label - GAP - sum(cell_len(part) + GAP for part in ("score", "stabi-"))
    num_sparsities = len(grid.sparsities)
    attacked = [i for i, epsilon in enumerate(grid.epsilons) if epsilon > 0]
    choices = [_spread(attacked, count) for count in range(len(attacked), -1, -1)]
    for budgets in choices:
        if num_sparsities * _group_width(grid, budgets) <= room:
            return [_screen_table(grid, measures, range(num_sparsities), budgets, last=True)]
    budgets = next((b for b in choices if _group_width(grid, b) <= room), [])
    each = max(1, room // _group_width(grid, budgets))
    starts = list(range(0, num_sparsities, each))
    return [
        _screen_table(grid, measures, range(start, min(start + each, num_sparsities)), budgets, last=start == starts[-1])
        for start in starts
    ]


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """``count`` of the indices, evenly spread."""
    return [indices[int((i + 0.5) * len(indices) / count)] for i in range(count)]


def _headings(grid: Grid, budgets: Sequence[int], sparsity: float) -> list[str]:
    clean = ["clean"] if 0.0 in grid.epsilons else []
    names = [*clean, *(f"ε{format_epsilon(grid.epsilons[i])}" for i in budgets), "mean"]
    return [f"{format_sparsity(sparsity)}\n{names[0]}", *(f"\n{name}" for name in names[1:])]


def _group_width(grid: Grid, budgets: Sequence[int]) -> int:
    headings = [line for s in grid.sparsities for line in _headings(grid, budgets, s)]
    per_group = len(headings) // len(grid.sparsities)
    widths = [max(4, *(cell_len(part) for part in heading.split("\n"))) + GAP for heading in headings]
    return max(sum(widths[i : i + per_group]) for i in range(0, len(widths), per_group))


def _screen_table(
    grid: Grid, measures: Mapping[str, ArmMeasures], chosen: Sequence[int], budgets: Sequence[int], *, last: bool
) -> Table:
    means = cell_means(grid.accuracy)
    shown = [*([grid.epsilons.index(0.0)] if 0.0 in grid.epsilons else []), *budgets]
    values = np.concatenate([np.concatenate([means[:, s, shown], means[:, s].mean(-1, keepdims=True)], 1) for s in chosen], 1)
    columns = ["\narm", *(name for s in chosen for name in _headings(grid, budgets, grid.sparsities[s]))]
    if last:
        columns += ["AER\nscore", "stabi-\nlity"]
        extra = [[measures[arm].aer_score.value, -measures[arm].stability.value] for arm in grid.arms]
        values = np.concatenate([values, np.array(extra)], 1)
    best = [max((v for v in column if not math.isnan(v)), default=math.nan) for column in values.T]
    rows = tuple(
        (Cell(arm), *(Cell(percent(abs(v)), None, "", bool(v == b)) for v, b in zip(line, best, strict=True)))
        for arm, line in zip(grid.arms, values, strict=True)
    )
    return Table(
        f"{grid.comparison.label}: accuracy, %", tuple(columns), rows, "mean: over all ε, clean included" if last else ""
    )
