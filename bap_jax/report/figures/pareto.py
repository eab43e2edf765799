"""The trade-off between clean accuracy, robust accuracy and size."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from bap_jax.report.figures.canvas import Styles, arm_legend, drawing, empty_figure, tidy, title
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
        _line(left, clean[i], robust[i], best[i], styles[arm])
        _line(right, size[i], robust[i], best[i], styles[arm])
        for place, (x, y, s) in enumerate(zip(clean[i], robust[i], grid.sparsities, strict=True)):
            if 0 < place < len(grid.sparsities) - 1 and len(grid.sparsities) > 4:
                continue  # many labels would cover each other: the ends suffice
            if not math.isnan(x + y) and (styles[arm].width > 2 or len(grid.arms) == 1):
                left.annotate(
                    format_sparsity(s), (x, y), xytext=(0, -15), textcoords="offset points", ha="center", fontsize=9, color=INK
                )
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
    title(figure, f"Trade-off, {grid.comparison.label}: filled = not dominated")
    arm_legend(figure, grid.arms, styles)
    return figure


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, best: np.ndarray, style: Style) -> None:
    axes.plot(x, y, color=style.colour, linestyle=style.line, linewidth=style.width * 0.7, alpha=0.8)
    for chosen, face in ((best, style.colour), (~best, PAPER)):
        axes.plot(
            x[chosen],
            y[chosen],
            linestyle="none",
            marker=style.marker,
            markersize=8,
            markerfacecolor=face,
            markeredgecolor=style.colour,
        )


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
