"""The sparsity of every layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bap_jax.errors import SettingError
from bap_jax.report.figures.canvas import Styles, drawing, empty_figure, handle, legend, tidy, tip
from bap_jax.report.style import FAINT, arm_styles

MAX_RUNS = 12


def layers_figure(layers: Mapping[str, Mapping[str, float]], styles: Styles | None = None) -> Figure:
    """The sparsity of every layer, one mark per run.

    Args:
      layers: run name → layer → sparsity, layers in the network's order. At most twelve runs are drawn, the first ones.
      styles: of the runs.

    Raises:
      SettingError: no run has a layer.
    """
    if not layers or not any(layers.values()):
        raise SettingError("layers", dict(layers), "at least one run with at least one layer")
    layers = {run: layers[run] for run in list(layers)[:MAX_RUNS]}
    with drawing():
        styles = styles or arm_styles(list(layers))
        names = list(dict.fromkeys(layer for run in layers.values() for layer in run))
        figure = empty_figure(7.6, max(0.3, 0.11 * len(layers)) * len(names) + 1.7)
        axes = figure.subplots()
        spread = np.linspace(-0.34, 0.34, len(layers)) if len(layers) > 1 else [0.0]
        for run, offset in zip(layers, spread, strict=True):
            values = [100 * layers[run].get(name, math.nan) for name in names]
            places = np.arange(len(names)) + offset
            style = styles[run]
            for value, place, name in zip(values, places, names, strict=True):
                if not math.isnan(value):
                    (mark,) = axes.plot([value], [place], linestyle="none", color=style.colour, marker=style.marker, markersize=6)
                    tip(mark, f"{run}, {name}: {value:.2f} %")
        axes.set_yticks(np.arange(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        _fit(axes, [100 * value for run in layers.values() for value in run.values() if not math.isnan(value)])
        axes.set_xlabel("sparsity, %")
        axes.set_title("Sparsity per layer", loc="left")
        tidy(axes)
        handles = [handle(styles[run]._replace(line="none"), styles[run].marker) for run in layers]
        legend(figure, handles, list(layers), figure.get_figwidth())
        return figure


def _fit(axes: Axes, values: Sequence[float]) -> None:
    """An axis as wide as the sparsities need, so that marks which differ lie apart; a twentieth more on either side."""
    low, high = min(values, default=0.0), max(values, default=100.0)
    room = max(1.0, 0.05 * (high - low))
    axes.set_xlim(max(-2.0, low - room), min(102.0, high + room))
    for border in range(len(axes.get_yticks()) - 1):
        axes.axhline(border + 0.5, color=FAINT, linewidth=0.8)
