"""The score over the budget that training was given: what a prescribed budget costs, and what it costs to prescribe none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bap_jax.report.figures.canvas import Styles, drawing, empty_figure, handle, legend, tidy, tip, title
from bap_jax.report.measures import ArmMeasures, Grid, Interval
from bap_jax.report.rows import Row, format_epsilon
from bap_jax.report.style import Style, arm_styles

FAMILY = "uniform, ε prescribed"


def prescribed(rows: Sequence[Row], grid: Grid) -> dict[str, float]:
    """Arm → the ε that its training was given, of the arms with a uniform budget by one and the same attack, rising.

    Example:
      >>> rows = [{"arm": "a", "budget": "uniform", "train_epsilon": 0.2}, {"arm": "b", "budget": "none"}]
      >>> class Two:
      ...     arms = ("a", "b")
      >>> prescribed(rows, Two())
      {'a': 0.2}
    """
    found: dict[str, tuple[float, str]] = {}
    for row in rows:
        if row.get("budget") == "uniform" and row.get("train_epsilon") is not None and row["arm"] in grid.arms:
            found[str(row["arm"])] = float(row["train_epsilon"]), str(row.get("train_attack"))
    first = next(iter(found.values()), (0.0, ""))[1]
    return {arm: epsilon for arm, (epsilon, attack) in sorted(found.items(), key=lambda one: one[1][0]) if attack == first}


def budgets_figure(
    grid: Grid, measures: Mapping[str, ArmMeasures], given: Mapping[str, float], styles: Styles | None = None
) -> Figure:
    """The AER score of the arms with a prescribed budget over that budget, beside level lines of the arms that have none.

    Args:
      grid: one comparison.
      measures: of its arms.
      given: arm → the ε that its training was given, of at least two arms, as :func:`prescribed` finds them.
      styles: of the arms.
    """
    styles = styles or arm_styles(grid.arms)
    family = styles[next(iter(given))]
    others = [arm for arm in grid.arms if arm not in given and not math.isnan(measures[arm].aer_score.value)]
    with drawing():
        figure = empty_figure(8.2, 3.2)
        axes = figure.subplots()
        radii = list(given.values())
        for arm in others:
            _level(axes, radii, measures[arm].aer_score, styles[arm], arm)
        scores = [measures[arm].aer_score for arm in given]
        values = [100 * score.value for score in scores]
        if all(score.known for score in scores):
            low, high = [100 * score.low for score in scores], [100 * score.high for score in scores]
            axes.fill_between(radii, low, high, color=family.colour, alpha=0.16, linewidth=0)
        axes.plot(radii, values, color=family.colour, linestyle=family.line, linewidth=family.width)
        for arm, radius, value in zip(given, radii, values, strict=True):
            (point,) = axes.plot([radius], [value], color=family.colour, marker=family.marker, markersize=7)
            tip(point, f"{arm}: {value:.1f} %")
        axes.set_xticks(radii, [format_epsilon(radius) for radius in radii])
        axes.margins(x=0.04, y=0.12)
        axes.set_xlabel("ε that training was given")
        axes.set_ylabel("AER score, %")
        tidy(axes)
        names = [FAMILY, *others]
        legend(figure, [handle(family, family.marker), *(handle(styles[arm]) for arm in others)], names, figure.get_figwidth())
        title(figure, f"Score over the budget of training, {grid.comparison.label}")
        return figure


def _level(axes, radii: Sequence[float], score: Interval, style: Style, arm: str) -> None:
    if score.known:
        axes.fill_between(
            [min(radii), max(radii)], 100 * score.low, 100 * score.high, color=style.colour, alpha=0.16, linewidth=0
        )
    value = 100 * score.value
    (line,) = axes.plot(
        [min(radii), max(radii)], [value, value], color=style.colour, linestyle=style.line, linewidth=max(style.width, 1.8)
    )
    tip(line, f"{arm}: {value:.1f} %")
