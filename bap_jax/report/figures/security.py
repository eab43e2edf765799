"""Security curves: accuracy over the attack's budget."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bap_jax.report.figures.canvas import Styles, arm_legend, drawing, empty_figure, tidy, tip, title
from bap_jax.report.measures import Grid, cell_interval
from bap_jax.report.rows import format_sparsity
from bap_jax.report.style import arm_styles


def security_figure(grid: Grid, styles: Styles | None = None) -> Figure:
    """Security curves: accuracy over ε, one panel per sparsity, one line per arm.

    The band is the 95 % bootstrap interval over seeds and processes; there is none where it is not defined.
    """
    with drawing():
        return _draw(grid, styles or arm_styles(grid.arms))


def _draw(grid: Grid, styles: Styles) -> Figure:
    across = min(3, len(grid.sparsities))
    down = math.ceil(len(grid.sparsities) / across)
    figure = empty_figure(max(5.2, 3.5 * across), 3.0 * down + 1.0)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for i, axes in enumerate(panels.flat):
        if i >= len(grid.sparsities):
            axes.set_visible(False)
            continue
        _panel(axes, grid, i, styles)
        if i + across >= len(grid.sparsities):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("ε of the attack (0 = clean)")
    figure.supylabel("accuracy, %", fontsize=10)
    title(figure, f"Security curves, {grid.comparison.label}")
    arm_legend(figure, grid.arms, styles)
    return figure


def _panel(axes: Axes, grid: Grid, sparsity: int, styles: Styles) -> None:
    epsilons = np.asarray(grid.epsilons)
    finite = np.isfinite(epsilons)
    for arm, accuracy in zip(grid.arms, grid.accuracy, strict=True):
        cells = [cell_interval(cell, over="seeds and processes", num_resamples=400) for cell in accuracy[sparsity]]
        value, low, high = (np.array(part)[finite] * 100 for part in zip(*cells, strict=True))
        there, style = ~np.isnan(value), styles[arm]
        axes.fill_between(epsilons[finite], low, high, color=style.colour, alpha=0.16, linewidth=0)
        (line,) = axes.plot(
            epsilons[finite][there],
            value[there],
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            linewidth=style.width,
            markersize=5,
            zorder=3 if style.width > 2 else 2,
        )
        tip(
            line,
            f"{arm}: " + ", ".join(f"{v:.1f} % at {e:g}" for e, v in zip(epsilons[finite][there], value[there], strict=True)),
        )
    axes.set_title(f"{format_sparsity(grid.sparsities[sparsity])} sparse", loc="left")
    axes.set_ylim(-2, 102)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    tidy(axes)
