"""Training over steps: the budgets that examples got, the cutoff, sparsity and loss."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bap_jax.errors import SettingError
from bap_jax.report.figures.canvas import Styles, drawing, empty_figure, handle, legend, tidy
from bap_jax.report.style import INK, arm_styles

MAX_HISTORIES = 6


def training_figure(histories: Mapping[str, Sequence[Mapping[str, Any]]], styles: Styles | None = None) -> Figure:
    """Training over steps: the budgets ε_i and the cutoff of each run that has them; then sparsity and loss of all runs.

    Args:
      histories: run name → rows with ``step`` and any of ``epsilon_mean``, ``epsilon_q05`` … ``epsilon_q95`` (quantiles over the
        batch), ``cutoff``, ``sparsity`` and ``loss``. Of more than six runs six are
        drawn, see :func:`drawn_histories`.
      styles: of the runs.

    Raises:
      SettingError: no run has anything to draw.
    """
    with drawing():
        chosen = drawn_histories(histories)
        return _draw(chosen, styles or arm_styles(list(chosen)))


def _draw(histories: Mapping[str, Sequence[Mapping[str, Any]]], styles: Styles) -> Figure:
    with_budget = with_budgets(histories)
    others = [key for key in ("sparsity", "loss") if any(len(_series(rows, key)[0]) for rows in histories.values())]
    panels = len(with_budget) + len(others)
    if not panels:
        raise SettingError("histories", sorted(histories), "rows with step and epsilon_mean, cutoff, sparsity or loss")
    across = min(panels, 3)
    figure = empty_figure(max(4.6, 3.8 * across), 3.1 * math.ceil(panels / across) + 0.9)
    axes = list(figure.subplots(math.ceil(panels / across), across, squeeze=False).flat)
    for name, panel in zip(with_budget, axes, strict=False):
        _budget_panel(panel, name, histories[name], styles[name].colour)
    for key, panel in zip(others, axes[len(with_budget) :], strict=False):
        for name, rows in histories.items():
            steps, values = _series(rows, key)
            scaled = values * 100 if key == "sparsity" else values
            panel.plot(steps, scaled, color=styles[name].colour, linestyle=styles[name].line, linewidth=styles[name].width)
        panel.set_title("sparsity, %" if key == "sparsity" else "training loss", loc="left")
    for panel in axes[panels:]:
        panel.set_visible(False)
    for panel in axes[:panels]:
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.set_xlabel("step")
        tidy(panel)
    if others:
        legend(figure, [handle(styles[name]) for name in histories], list(histories), figure.get_figwidth())
    return figure


def drawn_histories(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The runs that are drawn: those with budgets first, then the others, at most :data:`MAX_HISTORIES`, in the order given.

    Example:
      >>> runs = {f"run {i}": [{"step": 0, "loss": 1.0}] for i in range(7)} | {"blind": [{"step": 0, "epsilon_mean": 0.1}]}
      >>> list(drawn_histories(runs))[-2:]
      ['run 4', 'blind']
    """
    blind = with_budgets(histories)
    chosen = [*blind, *(name for name in histories if name not in blind)][:MAX_HISTORIES]
    return {name: rows for name, rows in histories.items() if name in chosen}


def with_budgets(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The runs whose rows tell budgets or a cutoff.

    Example:
      >>> with_budgets({"a": [{"step": 0, "loss": 1.0}], "b": [{"step": 0, "epsilon_mean": 0.1}]})
      ['b']
    """
    return [
        name for name, rows in histories.items() if any(key.startswith("epsilon") or key == "cutoff" for r in rows for key in r)
    ]


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return np.array([step for step, _ in pairs], float), np.array([value for _, value in pairs], float)


def _budget_panel(axes: Axes, name: str, rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    keys = sorted({key for row in rows for key in row if re.fullmatch(r"epsilon_q\d+", key)}, key=_quantile)
    for depth, (low, high) in enumerate(zip(keys, reversed(keys), strict=True)):
        if _quantile(low) >= _quantile(high):
            break
        label = f"ε {_quantile(low):g}–{_quantile(high):g} %"
        steps, bottom = _series(rows, low)
        _, top = _series(rows, high)
        if len(bottom) == len(top):
            axes.fill_between(steps, bottom, top, color=colour, alpha=0.18 + 0.14 * depth, linewidth=0, label=label)
    for key, label, line in (("epsilon_q50", "ε median", "--"), ("epsilon_mean", "ε mean", "-"), ("epsilon", "ε", "-")):
        steps, values = _series(rows, key)
        if len(steps):
            axes.plot(steps, values, color=colour, linestyle=line, linewidth=1.6, label=label)
    steps, values = _series(rows, "cutoff")
    if len(steps):
        axes.plot(steps, values, color=INK, linestyle=":", linewidth=1.8, label="cutoff")
    axes.set_title(f"budgets ε: {name}", loc="left")
    axes.set_ylim(0, 1.42 * axes.get_ylim()[1])  # room for the legend, so that it covers nothing
    axes.legend(fontsize=8.5, frameon=False, loc="upper left", ncols=2, columnspacing=1.0, handlelength=1.8)


def _quantile(key: str) -> float:
    digits = key.removeprefix("epsilon_q")
    return float(digits) / 10 ** max(0, len(digits) - 2)  # q05, q50, q975 = 97.5 %
