"""Minimal adversarial distances: at which radius how many examples are left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bap_jax.report.distances import Distances, survival
from bap_jax.report.figures.canvas import Styles, arm_legend, drawing, empty_figure, tidy, title
from bap_jax.report.rows import format_sparsity, in_order
from bap_jax.report.style import arm_styles


def distances_figure(found: Sequence[Distances], styles: Styles | None = None) -> Figure:
    """Accuracy over every radius by one minimal-norm attack: the share of examples whose nearest adversarial point lies farther.

    Args:
      found: of one attack, data set and model; one panel per sparsity, one line per arm. The thin line is the median distance of
        the examples that were right without an attack.
      styles: of the arms.
    """
    with drawing():
        return _draw(found, styles or arm_styles(in_order(one.arm for one in found)))


def _draw(found: Sequence[Distances], styles: Styles) -> Figure:
    sparsities = sorted({one.sparsity for one in found})
    across = min(3, len(sparsities))
    down = math.ceil(len(sparsities) / across)
    figure = empty_figure(max(5.2, 3.5 * across), 3.0 * down + 1.0)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    reach = max((float(one.values[np.isfinite(one.values)].max(initial=0.0)) for one in found), default=0.0) or 1.0
    for i, axes in enumerate(panels.flat):
        if i >= len(sparsities):
            axes.set_visible(False)
            continue
        for one in (one for one in found if one.sparsity == sparsities[i]):
            _line(axes, one, styles, reach)
        axes.set_title(f"{format_sparsity(sparsities[i])} sparse", loc="left")
        axes.set_ylim(-2, 102)
        axes.set_xlim(0, 1.02 * reach)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        tidy(axes)
        if i + across >= len(sparsities):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(f"radius ({found[0].norm_label})")
    figure.supylabel("accuracy, %", fontsize=10)
    title(figure, f"Distances to the nearest adversarial point, {found[0].label}")
    arm_legend(figure, in_order(one.arm for one in found), styles)
    return figure


def _line(axes: Axes, one: Distances, styles: Styles, reach: float) -> None:
    radii, accuracy = survival(one.values)
    style = styles[one.arm]
    axes.plot(
        [*radii, reach],
        100 * np.append(accuracy, accuracy[-1]),
        color=style.colour,
        linestyle=style.line,
        linewidth=style.width,
        drawstyle="steps-post",
        marker=style.marker,
        markevery=0.2,
        markersize=5,
        zorder=3 if style.width > 2 else 2,
    )
    if math.isfinite(one.median):
        axes.axvline(one.median, color=style.colour, linestyle=style.line, linewidth=0.7, alpha=0.6)
