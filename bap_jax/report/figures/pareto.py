"""The trade-off between clean accuracy, robust accuracy and size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from bap_jax.report.figures.canvas import Styles, arm_legend, drawing, empty_figure, tidy, tip, title
from bap_jax.report.measures import Grid, cell_means
from bap_jax.report.rows import format_sparsity
from bap_jax.report.style import INK, PAPER, Style, arm_styles


def pareto_figure(grid: Grid, sizes: Mapping[tuple[str, float], float] | None = None, styles: Styles | None = None) -> Figure:
    """Accuracy, robustness and size: clean accuracy against mean robust accuracy, and the latter against size.

    A point is one arm at one sparsity; arms are joined along sparsity. A filled point is not dominated: no other one is at
    least as good in clean accuracy, in robust accuracy and in size, and better in one of them.

    Args:
      grid: one comparison with ε = 0 and at least one ε > 0.
      sizes: (arm, sparsity) → non-zero parameters; the share of weights kept if None.
      styles: of the arms.
    """
    with drawing():
        return _draw(grid, sizes, styles or arm_styles(grid.arms))


def _draw(grid: Grid, sizes: Mapping[tuple[str, float], float] | None, styles: Styles) -> Figure:
    clean, robust = pareto_points(grid)
    size = np.array([[sizes.get((a, s), math.nan) if sizes else 100 * (1 - s) for s in grid.sparsities] for a in grid.arms])
    best = not_dominated(np.stack([clean.ravel(), robust.ravel(), -size.ravel()], -1)).reshape(clean.shape)
    figure = empty_figure(9.6, 4.7)
    left, right = figure.subplots(1, 2, sharey=True)
    for i, arm in enumerate(grid.arms):
        tips = [f"{arm}, {format_sparsity(s)} sparse" for s in grid.sparsities]
        _line(left, clean[i], robust[i], best[i], styles[arm], tips)
        _line(right, size[i], robust[i], best[i], styles[arm], tips)
    left.set_xlabel("clean accuracy, %")
    left.set_ylabel("mean accuracy over ε > 0, %")
    right.set_xlabel("non-zero parameters" if sizes else "weights kept, %")
    positive = sorted(set(size[size > 0].tolist()))
    if positive and positive[-1] > 3 * positive[0]:
        right.set_xscale("log")
        right.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_formatter(EngFormatter(sep="") if sizes else FuncFormatter(lambda x, _: f"{x:g}"))
    right.invert_xaxis()
    left.set_title("Accuracy and robustness", loc="left")
    right.set_title("Robustness and size (smaller to the right)", loc="left")
    for axes in (left, right):
        axes.margins(0.09)
        tidy(axes)
    _sparsities(right, size, grid.sparsities)
    title(figure, f"Trade-off, {grid.comparison.label}: filled = not dominated")
    arm_legend(figure, grid.arms, styles)
    return figure


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, best: np.ndarray, style: Style, tips: Sequence[str]) -> None:
    axes.plot(x, y, color=style.colour, linestyle=style.line, linewidth=style.width * 0.7, alpha=0.8)
    for place, text in enumerate(tips):
        if math.isnan(x[place] + y[place]):
            continue
        face = style.colour if best[place] else PAPER
        look: dict[str, Any] = {"marker": style.marker, "markersize": 8, "markerfacecolor": face, "markeredgecolor": style.colour}
        (mark,) = axes.plot([x[place]], [y[place]], linestyle="none", **look)
        tip(mark, f"{text}: {x[place]:,.1f}, {y[place]:.1f} %")


def _sparsities(axes: Axes, size: np.ndarray, sparsities: Sequence[float]) -> None:
    """Each sparsity at the foot of the axes, below the marks of its size; where they are many the first and the last."""
    axes.set_ylim(bottom=axes.get_ylim()[0] - 0.07 * (axes.get_ylim()[1] - axes.get_ylim()[0]))
    for place, sparsity in enumerate(sparsities):
        if (0 < place < len(sparsities) - 1 and len(sparsities) > 4) or np.isnan(size[:, place]).all():
            continue
        at, where = np.nanmean(size[:, place]), axes.get_xaxis_transform()
        axes.text(at, 0.015, format_sparsity(sparsity), transform=where, ha="center", va="bottom", fontsize=9, color=INK)


def pareto_points(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Clean accuracy and mean robust accuracy in per cent, each ``[arms, sparsities]``; NaN where a budget is missing."""
    means = cell_means(grid.accuracy) * 100
    is_clean = np.array([epsilon == 0 for epsilon in grid.epsilons])
    shape = means.shape[:2]
    clean = means[..., is_clean].mean(-1) if is_clean.any() else np.full(shape, math.nan)
    robust = means[..., ~is_clean].mean(-1) if (~is_clean).any() else np.full(shape, math.nan)
    return clean, robust


def not_dominated(points: np.ndarray) -> np.ndarray:
    """Which points ``[n, criteria]`` (more is better) no other one dominates; a point with a NaN is never among them.

    Example:
      >>> not_dominated(np.array([[1.0, 1.0], [2.0, 1.0], [0.0, 3.0]])).tolist()
      [False, True, True]
    """
    at_least = np.all(points[None] >= points[:, None], axis=-1)
    better = np.any(points[None] > points[:, None], axis=-1)
    return ~np.any(at_least & better, axis=1) & ~np.isnan(points).any(-1)


def has_trade_off(grid: Grid) -> bool:
    """Whether :func:`pareto_figure` has anything to show: a clean and an attacked accuracy of two networks."""
    clean, robust = pareto_points(grid)
    return bool((~np.isnan(clean + robust)).sum() > 1)
