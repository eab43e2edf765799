"""Draws the three claims of the paper, what methods cost, and the grid of faces.py, from the CSVs in
experiments/results/, into experiments/figures/.

Command: ``python -m experiments.figures`` draws them all anew; ``--check`` only says whether they belong to the CSVs that are
there. Every picture carries the digest of the CSV that it was drawn from.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bap_jax.atomic import write_atomic
from bap_jax.report import Grid, Interval, comparisons_of, make_grid, measure, uniform_arms
from bap_jax.report.figures import svg_bytes
from bap_jax.report.figures.canvas import drawing, empty_figure, handle, legend, tidy, title
from bap_jax.report.measures import best_arm, process_spread
from bap_jax.report.rows import format_sparsity
from bap_jax.report.style import INK, Style, arm_styles
from bap_jax.runs.parsing import format_radius
from experiments import compressions
from experiments.published import RESULTS, Row, published_rows
from experiments.tables import families_of, radius_of

FIGURES = Path(__file__).parent / "figures"
CLAIMED = ("digits_aer", "mnist_lenet5")  # the CSVs that hold what all three claims are about
SHADES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")  # of sparsities
LINES = ("-", "--", ":", "-.")  # of ramps


def processes_figure(rows: Sequence[Row]) -> Figure:
    """Claim 1: how much robustness varies with the pruning process. On the left each process of clean pruning is a line; on the
    right the spread over all processes (ramps and sparsities) stands for each arm, with its interval over seeds.
    """
    grid = _test_grid(rows)
    arms = _chosen_arms(rows, grid)
    with drawing():
        figure = empty_figure(9.2, 4.4)
        left, right = figure.subplots(1, 2)
        means = 100 * np.nanmean(grid.accuracy[grid.arms.index("clean")], axis=-1)  # [sparsities, epsilons, processes]
        for s, p in np.ndindex(len(grid.sparsities), len(grid.processes)):
            left.plot(grid.epsilons, means[s, :, p], color=SHADES[s % 4], linestyle=LINES[p % 4], linewidth=1.5)
        left.set_title("clean pruning, each process, accuracy in %", loc="left")
        styles = arm_styles(arms)
        for arm in arms:
            _band(right, grid.epsilons, process_spread(grid, arm, sparsities=True), styles[arm])
        right.set_title("spread over processes, points", loc="left")
        for axes in (left, right):
            tidy(axes)
            axes.set_xlabel("ε of the attack (0 = clean)")
            axes.set_ylim(bottom=0)
        sparsities = [handle(Style(SHADES[s % 4], "", "-")) for s in range(len(grid.sparsities))]
        ramps = [handle(Style(INK, "", LINES[p % 4])) for p in range(len(grid.processes))]
        names = [*(f"{format_sparsity(s)} sparse" for s in grid.sparsities), *(f"ramp {name}" for name in grid.processes)]
        left.legend([*sparsities, *ramps], names, frameon=False, fontsize=8.5)
        right.legend([handle(styles[arm], styles[arm].marker) for arm in arms], arms, frameon=False, fontsize=8.5)
        title(figure, f"1. Robustness over pruning processes: {grid.comparison.label}")
        return figure


def budgets_figure(rows: Sequence[Row]) -> Figure:
    """Claim 2: the AER score of adversarial pruning over the budget it is given, beside that of arms that are given none."""
    grid = _test_grid(rows)
    measured = measure(grid)
    families, others = _families(rows, grid)
    styles = arm_styles([*others, *families])
    radii = sorted({radius for family in families.values() for radius, _ in family})
    with drawing():
        figure = empty_figure(8.2, 4.6)
        axes = figure.subplots()
        for name, family in families.items():
            _band(axes, [radius for radius, _ in family], [measured[arm].aer_score for _, arm in family], styles[name])
        for arm in others:
            score = measured[arm].aer_score
            _band(axes, [radii[0], radii[-1]], [score, score], styles[arm]._replace(marker=""))
        tidy(axes)
        axes.set_xticks(radii)
        axes.set_xlabel("ε that training was given")
        axes.set_ylabel("AER score, %")
        legend(figure, [handle(styles[name], styles[name].marker if name in families else "") for name in styles], [*styles], 8.2)
        title(figure, f"2. Sensitivity to the budget: {grid.comparison.label}")
        return figure


def trade_off_figure(rows: Sequence[Row]) -> Figure:
    """Claim 3: AER score against the spread over ramps of every arm, both with intervals over seeds; up and left is better.

    Arms that differ in a prescribed budget alone are joined by a line, and each has its radius beside it.
    """
    grid = _test_grid(rows)
    measured = measure(grid)
    families, others = _families(rows, grid)
    styles = arm_styles([*others, *families])
    with drawing():
        figure = empty_figure(8.2, 5.2)
        axes = figure.subplots()
        for name, arms in [*((arm, [arm]) for arm in others), *((name, [arm for _, arm in f]) for name, f in families.items())]:
            style = styles[name]
            points = [(100 * measured[arm].stability.value, 100 * measured[arm].aer_score.value) for arm in arms]
            axes.plot(*zip(*points, strict=True), color=style.colour, linestyle=style.line, linewidth=0.9, alpha=0.6)
            for arm, point in zip(arms, points, strict=True):
                _cross(axes, point, measured[arm].stability, measured[arm].aer_score, style)
                if name in families:
                    axes.annotate(
                        format_radius(radius_of(rows, arm)), point, xytext=(5, 5), textcoords="offset points", fontsize=8.5
                    )
        tidy(axes)
        axes.set_xlim(left=0)
        axes.set_xlabel("spread over ramps, points (to the left: steadier)")
        axes.set_ylabel("AER score, % (up: better)")
        legend(figure, [handle(style, style.marker) for style in styles.values()], [*styles], 8.2)
        title(figure, f"3. Overall score and stability: {grid.comparison.label}")
        return figure


def cost_figure(rows: Sequence[Row]) -> Figure:
    """AER score of every arm against the seconds that its training took, in the mean over its networks; up and left is better.

    The seconds are those of each run alone, without the network that arms share and begin with.
    """
    grid = _test_grid(rows)
    measured, styles = measure(grid), arm_styles(grid.arms)
    with drawing():
        figure = empty_figure(8.2, 5.2)
        axes = figure.subplots()
        for arm in grid.arms:
            # of each network once: its clean row
            taken = [
                row["train_seconds"]
                for row in rows
                if row["arm"] == arm
                and row["model"] == grid.comparison.model
                and row["attack"] == "clean"
                and row["train_seconds"]
            ]
            score, style = measured[arm].aer_score, styles[arm]
            seconds = float(np.mean(taken)) if taken else math.nan
            axes.plot(seconds, 100 * score.value, marker=style.marker, color=style.colour, markersize=7.5, linestyle="")
            axes.plot([seconds] * 2, [100 * score.low, 100 * score.high], color=style.colour, linewidth=1.1)
        tidy(axes)
        axes.set_xscale("log")
        axes.set_xlabel("seconds of training (to the left: cheaper)")
        axes.set_ylabel("AER score, % (up: better)")
        legend(figure, [handle(style, style.marker) for style in styles.values()], [*styles], 8.2)
        title(figure, f"What methods cost: {grid.comparison.label}")
        return figure


def _families(rows: Sequence[Row], grid: Grid) -> tuple[dict[str, list[tuple[float, str]]], list[str]]:
    """Uniform arms by their attack in training, each as (radius, arm), smallest first; and the arms without a radius."""
    uniform = [arm for arm in uniform_arms(rows) if arm in grid.arms]
    families = {
        f"uniform, {attack} in training": sorted((radius_of(rows, arm), arm) for arm in arms)
        for attack, arms in families_of(rows, uniform).items()
    }
    return families, [arm for arm in grid.arms if arm not in uniform]


def _cross(axes: Axes, point: tuple[float, float], across: Interval, up: Interval, style: Style) -> None:
    """A mark with its two intervals."""
    axes.plot(*point, marker=style.marker, color=style.colour, markersize=7.5, linestyle="")
    axes.plot([100 * across.low, 100 * across.high], [point[1]] * 2, color=style.colour, linewidth=1.1)
    axes.plot([point[0]] * 2, [100 * up.low, 100 * up.high], color=style.colour, linewidth=1.1)


Drawn = dict[str, Callable[[Sequence[Row]], Figure]]  # kind of picture -> what draws it of rows
DRAWN: Drawn = {
    "processes": processes_figure,
    "budgets": budgets_figure,
    "trade_off": trade_off_figure,
}
# drawn once their CSVs are published
COMPARED: dict[str, Drawn] = {"methods_digits": {"cost": cost_figure}, compressions.NAME: compressions.FIGURES}


def pictures() -> dict[str, Drawn]:
    """CSV -> the pictures that are drawn of it."""
    found: dict[str, Drawn] = dict.fromkeys(CLAIMED, DRAWN)
    return found | {name: drawn for name, drawn in COMPARED.items() if (RESULTS / f"{name}.csv").is_file()}


def _test_grid(rows: Sequence[Row]) -> Grid:
    """The first attack on test data."""
    tested = [row for row in rows if row["split"] == "test"]
    return make_grid(tested, comparisons_of(tested)[0])


def _chosen_arms(rows: Sequence[Row], grid: Grid) -> list[str]:
    """Clean, blind, and the uniform budget that validation data prefers."""
    held_out = [row for row in rows if row["split"] == "validation"]
    validation = make_grid(held_out, comparisons_of(held_out)[0])
    best = best_arm(validation, [arm for arm in uniform_arms(held_out) if arm in validation.arms])
    return [arm for arm in grid.arms if arm in ("clean", best, "blind")]


def _band(axes: Axes, places: Sequence[float], intervals: Sequence[Interval], style: Style) -> None:
    """A line with its intervals as a band."""
    value, low, high = (100 * np.array(part) for part in zip(*intervals, strict=True))
    axes.fill_between(places, low, high, color=style.colour, alpha=0.16, linewidth=0)
    axes.plot(places, value, color=style.colour, marker=style.marker, linestyle=style.line, linewidth=style.width, markersize=5)


def digest(name: str) -> str:
    """Of a published CSV."""
    return hashlib.sha256((RESULTS / f"{name}.csv").read_bytes()).hexdigest()[:16]


def stamp(name: str) -> str:
    """What stands in a picture of that CSV."""
    return f"<!-- drawn by python -m experiments.figures from {name}.csv, sha256 {digest(name)} -->\n"


def draw(name: str) -> dict[Path, bytes]:
    """Every picture of a CSV, with the path that it has."""
    rows = [*published_rows(name), *published_rows(name, "validation")]
    made = pictures()[name].items()
    return {FIGURES / f"{name}_{kind}.svg": svg_bytes(make(rows)) + stamp(name).encode() for kind, make in made}


def stale() -> list[Path]:
    """Pictures that are missing or belong to another state of their CSV."""
    paths = {FIGURES / f"{name}_{kind}.svg": name for name, kinds in pictures().items() for kind in kinds}
    return [path for path, name in paths.items() if not path.exists() or stamp(name) not in path.read_text(encoding="utf-8")]


def main() -> int:
    if "--check" in sys.argv:
        for path in stale():
            print(f"{path.name}: not drawn from the CSV that is there")
        return len(stale())
    FIGURES.mkdir(exist_ok=True)
    for name in pictures():
        for path, content in draw(name).items():
            print(write_atomic(path, content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
