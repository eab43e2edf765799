"""AER heat maps: accuracy over sparsity and budget."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bap_jax.report.figures.canvas import drawing, empty_figure, tip, title
from bap_jax.report.measures import ArmMeasures, Grid, cell_means
from bap_jax.report.rows import format_epsilon, format_sparsity
from bap_jax.report.style import EMPTY, GREY, ON_DARK_CELL, ON_LIGHT_CELL, PAPER

LIGHT_FROM = 40  # per cent from which a cell has dark digits: on the mid-greys of the scale they read better than white ones


def aer_figure(grid: Grid, measures: Mapping[str, ArmMeasures]) -> Figure:
    """Heat maps of accuracy over sparsity × ε, one per arm, one colour scale; the numbers stand in the cells.

    Args:
      grid: one comparison.
      measures: of its arms; their AER score is the panels' title.

    Returns:
      The figure. A cell that was not measured is grey and says "–".
    """
    with drawing():
        return _draw(grid, measures)


def _draw(grid: Grid, measures: Mapping[str, ArmMeasures]) -> Figure:
    means = cell_means(grid.accuracy) * 100
    num_rows, num_columns = means.shape[1:]
    across = min(len(grid.arms), 2 if num_columns * num_rows > 4 and num_columns <= 12 else 1 if num_columns > 12 else 3)
    down = math.ceil(len(grid.arms) / across)
    width = max(3.4, 0.52 * num_columns + 1.2)
    names = _panel_titles(grid, measures, width)
    height = 0.34 * num_rows + 0.42 + 0.2 * max(1 + name.count("\n") for name in names)
    figure = empty_figure(across * width + 0.9, down * height + 1.0)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    mesh = None
    for i, axes in enumerate(panels.flat):
        if i >= len(grid.arms):
            axes.set_visible(False)
            continue
        mesh = _heat_map(axes, means[i], grid, grid.arms[i])
        axes.set_title(names[i], loc="left", fontweight="bold")
        if i + across >= len(grid.arms):
            axes.tick_params(labelbottom=True)
    assert mesh is not None
    bar = figure.colorbar(mesh, ax=panels, fraction=0.03, pad=0.015, aspect=30)
    bar.set_label("accuracy, %")
    figure.supxlabel("ε of the attack (0 = clean)", fontsize=10)
    figure.supylabel("sparsity", fontsize=10)
    title(figure, f"Accuracy, %: {grid.comparison.label}")
    return figure


def _panel_titles(grid: Grid, measures: Mapping[str, ArmMeasures], width: float) -> list[str]:
    """Every arm with its score: in one line each if all fit the panel's width in inches, else with the score in the last line."""
    scores = [measures[arm].aer_score.value for arm in grid.arms]
    said = [f"AER score {'–' if math.isnan(score) else f'{100 * score:.1f}'}" for score in scores]
    room = int(11 * (width - 0.6))
    whole = [f"{arm}   {text}" for arm, text in zip(grid.arms, said, strict=True)]
    if all(len(text) <= room for text in whole):
        return whole
    return [f"{textwrap.fill(arm, room)}\n{text}" for arm, text in zip(grid.arms, said, strict=True)]


def _heat_map(axes: Axes, means: np.ndarray, grid: Grid, arm: str) -> Any:
    axes.set_facecolor(EMPTY)
    mesh = axes.pcolormesh(np.ma.masked_invalid(means), cmap="cividis", vmin=0, vmax=100, edgecolors=PAPER, linewidth=1.0)
    axes.set_xticks(np.arange(len(grid.epsilons)) + 0.5, [format_epsilon(e) for e in grid.epsilons])
    axes.set_yticks(np.arange(len(grid.sparsities)) + 0.5, [format_sparsity(s) for s in grid.sparsities])
    axes.tick_params(length=0, labelsize=9)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(means):
        missing = math.isnan(value)
        colour = GREY if missing else ON_DARK_CELL if value < LIGHT_FROM else ON_LIGHT_CELL
        text = "–" if missing else f"{value:.0f}"
        weight = "normal" if missing else "bold"
        shown = axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, color=colour, fontweight=weight)
        where = f"{format_sparsity(grid.sparsities[row])} sparse, ε = {format_epsilon(grid.epsilons[column])}"
        tip(shown, f"{arm}, {where}: " + ("not measured" if missing else f"{value:.1f} %"))
    return mesh
