"""A picture of an evaluation. The one module of this layer that draws; nothing loads it before a picture is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bap_jax.errors import SettingError
from bap_jax.evaluation.result import EvaluationResult
from bap_jax.types import Norm


def evaluation_figure(result: EvaluationResult) -> Figure:
    """Security curves, one panel per norm; how many examples hold beyond a distance, where one was searched; cascades' stages.

    Args:
      result: of an evaluation with at least one attack.

    Returns:
      A matplotlib figure, which no window shows: ``figure.savefig("curve.png")``; a notebook shows it.

    Raises:
      SettingError: nothing was attacked.
    """
    norms = list(dict.fromkeys(result.norms.values()))
    if not norms:
        raise SettingError("result", "without attacks", "an evaluation with at least one attack")
    panels: list[tuple[str, Any]] = [("curve", norm) for norm in norms]
    panels += [("distance", norm) for norm in norms if any(result.norms[name] == norm for name in result.distance)]
    panels += [("stages", name) for name in result.stages]
    figure = Figure(figsize=(4.4 * len(panels), 3.4), layout="constrained")
    for axes, (kind, what) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        {"curve": _curve, "distance": _distances, "stages": _stages}[kind](axes, result, what)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _curve(axes: Axes, result: EvaluationResult, norm: Norm) -> None:
    rows = [row for row in result.to_rows() if row["norm"] == norm]
    clean = result.to_rows()[0]
    for attack in dict.fromkeys(row["attack"] for row in rows):
        line = [clean, *(row for row in rows if row["attack"] == attack)]
        epsilons = [row["epsilon"] for row in line]
        worst = attack.startswith("worst of ")
        drawn = axes.plot(
            epsilons,
            [100 * row["accuracy"] for row in line],
            "--" if worst else "-",
            marker="o",
            markersize=4,
            color="black" if worst else None,
            label="worst of them" if worst else attack,
        )[0]
        low, high = ([100 * row[side] for row in line] for side in ("low", "high"))
        axes.fill_between(epsilons, low, high, alpha=0.12, linewidth=0, color=drawn.get_color())
    axes.set(
        xlabel=f"ε of the attack, {norm} (0 = clean)", ylabel=f"accuracy of {result.num_examples} examples, %", ylim=(-2, 102)
    )
    axes.set_title(f"Security curves, {norm}", loc="left")
    axes.legend(frameon=False)


def _distances(axes: Axes, result: EvaluationResult, norm: Norm) -> None:
    for name, distances in result.distance.items():
        if result.norms[name] == norm:
            found = np.sort(distances[np.isfinite(distances)])
            share = 100 * (1 - np.arange(1, len(found) + 1) / len(distances))
            axes.step([0, *found], [100, *share], where="post", label=name)
    axes.set(xlabel=f"smallest perturbation found, {norm}", ylabel="examples that hold beyond it, %", ylim=(-2, 102))
    axes.set_title(f"Distances, {norm}", loc="left")
    axes.legend(frameon=False)


def _stages(axes: Axes, result: EvaluationResult, name: str) -> None:
    stages = result.stages[name]
    for place, epsilon in enumerate(result.epsilons[name]):
        if epsilon > 0:
            after = [100 * result.clean_accuracy, *(100 * float(accuracy[place]) for accuracy in stages.values())]
            axes.plot(["clean", *stages], after, marker="o", markersize=4, label=f"ε = {epsilon:.4g}")
    axes.set(ylabel="still robust, %", ylim=(-2, 102))
    axes.set_title(f"After each attack of {name}", loc="left")
    axes.legend(frameon=False)
