"""The sparsity of every layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bap_jax.errors import SettingError
from bap_jax.report.figures.canvas import Styles, drawing, empty_figure, handle, legend, tidy
from bap_jax.report.style import arm_styles

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
        figure = empty_figure(7.6, 0.3 * len(names) + 1.7)
        axes = figure.subplots()
        spread = np.linspace(-0.22, 0.22, len(layers)) if len(layers) > 1 else [0.0]
        for run, offset in zip(layers, spread, strict=True):
            values = [100 * layers[run].get(name, math.nan) for name in names]
            places = np.arange(len(names)) + offset
            style = styles[run]
            axes.plot(values, places, linestyle="none", color=style.colour, marker=style.marker, markersize=6)
        axes.set_yticks(np.arange(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("sparsity, %")
        axes.set_title("Sparsity per layer", loc="left")
        tidy(axes)
        handles = [handle(styles[run]._replace(line="none"), styles[run].marker) for run in layers]
        legend(figure, handles, list(layers), figure.get_figwidth())
        return figure
