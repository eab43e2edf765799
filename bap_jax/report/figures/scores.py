"""Bars: the AER score of every arm, and its stability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bap_jax.report.figures.canvas import Styles, drawing, empty_figure, tidy, tip, title
from bap_jax.report.measures import ArmMeasures, Grid, Interval
from bap_jax.report.style import GREY, INK, arm_styles


def scores_figure(grid: Grid, measures: Mapping[str, ArmMeasures], styles: Styles | None = None) -> Figure:
    """Bars: the AER score beside the stability (standard deviation over processes) of every arm, with intervals over seeds."""
    with drawing():
        styles = styles or arm_styles(grid.arms)
        longest = max(len(arm) for arm in grid.arms)
        figure = empty_figure(9.2 + 0.08 * max(0, longest - 12), 0.42 * len(grid.arms) + 1.9)
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, grid, [measures[arm].aer_score for arm in grid.arms], styles)
        left.set_title("AER score, %\n(higher is better)", loc="left")
        _bars(right, grid, [measures[arm].stability for arm in grid.arms], styles)
        right.set_title("Spread over processes, points\n(lower is steadier)", loc="left")
        title(figure, f"Score and stability, {grid.comparison.label}")
        return figure


def _bars(axes: Axes, grid: Grid, intervals: Sequence[Interval], styles: Styles) -> None:
    places = [float(place) for place in range(len(grid.arms))]
    top = max((100 * v for interval in intervals for v in (interval.value, interval.high) if not math.isnan(v)), default=0.0)
    top = top or 1.0  # all zero or all missing
    for place, arm, interval in zip(places, grid.arms, intervals, strict=True):
        value = 100 * interval.value
        if math.isnan(value):
            axes.text(0.01 * top, place, "– not defined", va="center", fontsize=9, color=GREY)
            continue
        (bar,) = axes.barh(place, value, color=styles[arm].colour, alpha=0.85, height=0.62)
        around = f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]" if interval.known else ""
        tip(bar, f"{arm}: {value:.1f}{around}")
        end = value
        if interval.known:
            low, high = 100 * interval.low, 100 * interval.high
            axes.plot([low, high], [place, place], color=INK, linewidth=1.4, marker="|", markersize=7)
            end = max(end, high)
        axes.text(end + 0.02 * top, place, f"{value:.1f}", va="center", fontsize=9.5)
    axes.set_yticks(places, list(grid.arms))
    axes.set_xlim(0, 1.16 * top)
    axes.set_ylim(len(grid.arms) - 0.4, -0.6)
    tidy(axes, "x")
    axes.tick_params(axis="y", length=0)
