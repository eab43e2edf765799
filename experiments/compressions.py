"""What the grid of ``faces.py`` says: accuracy over compression, the published means beside ours, the best network by the share
of attacked inputs. Read from ``experiments/results/faces_mnist.csv``, for ``tables.py`` and ``figures.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from bap_jax.report.figures.canvas import drawing, empty_figure, tidy, title
from bap_jax.report.style import arm_styles
from experiments.published import RESULTS, Row, published_rows

NAME = "faces_mnist"
DEEP = "weight-magnitude-global"
PGD, TRANSFER = "pgd-40-step-1/30", "pgd-40-step-1/30 from dense"
# Merkle et al., CNN/MNIST, unstructured, global magnitude: means over five seeds at c = 1 ... 64
PUBLISHED = {
    "clean": (98.9, 99.1, 99.0, 98.9, 98.7, 98.2, 94.6),
    "L∞ 16/255, PGD-40": (81.7, 82.7, 76.9, 61.5, 42.8, 28.2, 32.7),
    "L0, median of Brendel-Bethge": (7.8, 8.0, 7.5, 6.2, 4.6, 3.4, 3.2),
}
COMPRESSIONS = (1, 2, 4, 8, 16, 32, 64)
SHARES = tuple(np.linspace(0, 1, 11).tolist())


class Attack(NamedTuple):
    """An attack at a radius, as the rows name it."""

    label: str
    attack: str
    norm: str = ""
    epsilon: float = 0.0


CLEAN = Attack("clean", "clean")
ATTACKS = (
    CLEAN,
    *(Attack(f"L∞ {level}/255", PGD, "linf", level / 255) for level in (4, 8, 16, 32)),
    *(Attack(f"L2 {radius}", "fmn", "l2", radius) for radius in (1, 2)),
    *(Attack(f"L0 {count}", "sigma-zero", "l0", count) for count in (3, 6, 9)),
)
TRUSTED = {  # minimal-norm attacks beside each other, by their median distance
    "L0, median of Brendel-Bethge, 100 images": Attack("", "bb", "l0", 3),
    "L2, median of FMN, 500 images": Attack("", "fmn", "l2", 1),
    "L2, median of C&W, 100 images": Attack("", "cw", "l2", 1),
    "L2, median of Brendel-Bethge, 100 images": Attack("", "bb", "l2", 1),
}
SCENARIOS = (ATTACKS[3], ATTACKS[5], ATTACKS[8])  # of the mixed traffic


def rows_of(name: str = NAME) -> list[Row]:
    """The published rows; none before there are any."""
    return published_rows(name) if (RESULTS / f"{name}.csv").is_file() else []


def values(
    rows: Sequence[Row], attack: Attack, arm: str, compression: int, *, column: str = "accuracy", seed: int | None = None
) -> np.ndarray:
    """One number for each seed.

    Example:
      >>> row = {"arm": "a", "compression": 2, "attack": "clean", "norm": "", "epsilon": 0.0, "seed": 0, "accuracy": 0.5}
      >>> values([row], CLEAN, "a", 2), values([row], CLEAN, "a", 4)
      (array([0.5]), array([], dtype=float64))
    """
    found = [
        float(row[column])
        for row in rows
        if (row["arm"], row["compression"], row["attack"], row["norm"]) == (arm, compression, attack.attack, attack.norm)
        and abs(row["epsilon"] - attack.epsilon) < 1e-6
        and row[column] is not None
        and seed in (None, row["seed"])
    ]
    return np.asarray(found, float)


def told(numbers: np.ndarray, scale: float = 100.0) -> str:
    """Mean, and the standard deviation over seeds.

    Example:
      >>> told(np.array([0.5, 0.52])), told(np.array([0.5])), told(np.array([]))
      ('51.0 ±1.4', '50.0', '–')
    """
    if not numbers.size:
        return "–"
    return f"{scale * numbers.mean():.1f}" + (f" ±{scale * numbers.std(ddof=1):.1f}" if numbers.size > 1 else "")


def table(first: str, body: Sequence[Sequence[str]], columns: Sequence[str] = ()) -> str:
    """A Markdown table with a column for each compression."""
    header = [first, *(columns or (f"c = {c}" for c in COMPRESSIONS))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] + ["--:"] * (len(header) - 1), *body])


def sweet_spot_table(arm: str = DEEP) -> str:
    """Attacks × compressions of one chain: mean over seeds ± standard deviation; seeds and real compression below."""
    rows = rows_of()
    body = [[attack.label, *(told(values(rows, attack, arm, c)) for c in COMPRESSIONS)] for attack in ATTACKS]
    body.append(["seeds", *(str(values(rows, CLEAN, arm, c).size) for c in COMPRESSIONS)])
    body.append(["real c", *(told(values(rows, CLEAN, arm, c, column="compression_real"), 1.0) for c in COMPRESSIONS)])
    return table("accuracy, %", body)


def published_table() -> str:
    """The published means beside ours, of weights by magnitude over the network."""
    rows = rows_of()
    own = {
        "clean": (CLEAN, "accuracy", 100.0, "clean, 10,000 images"),
        "L∞ 16/255, PGD-40": (ATTACKS[3], "accuracy", 100.0, "L∞ 16/255, PGD-40, 2,000 images"),
        "L0, median of Brendel-Bethge": (ATTACKS[7], "median", 1.0, "L0, median of sigma-zero, 500 images"),
    }
    body = []
    for name, theirs in PUBLISHED.items():
        attack, column, scale, label = own[name]
        body.append([f"theirs: {name}", *map(str, theirs)])
        body.append([f"ours: {label}", *(told(values(rows, attack, DEEP, c, column=column), scale) for c in COMPRESSIONS)])
    for label, attack in TRUSTED.items():
        body.append([f"ours: {label}", *(distance(values(rows, attack, DEEP, c, column="median")) for c in COMPRESSIONS)])
    return table("", body)


def distance(numbers: np.ndarray) -> str:
    """A median distance, in two digits behind the point."""
    return f"{numbers.mean():.2f}" if numbers.size else "–"


def grid_table(attack: str) -> str:
    """Chains × compressions under one attack, by its label with ``_`` for blanks."""
    rows, chosen = rows_of(), next(one for one in ATTACKS if one.label == attack.replace("_", " "))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    return table(chosen.label, [[arm, *(cell(rows, chosen, arm, c) for c in COMPRESSIONS)] for arm in arms])


def cell(rows: Sequence[Row], attack: Attack, arm: str, compression: int) -> str:
    """Accuracy and real compression; a collapsed network says so under attack."""
    clean = values(rows, CLEAN, arm, compression)
    if attack != CLEAN and clean.size and clean.mean() < 0.4:
        return "collapsed"
    found = values(rows, attack, arm, compression)
    if not found.size or attack != CLEAN:
        return told(found)
    return f"{told(found)} ({values(rows, CLEAN, arm, compression, column='compression_real').mean():.1f})"


def mixed(rows: Sequence[Row], attack: Attack, share: float) -> list[tuple[float, str, int]]:
    """(1 − r)·clean + r·robust of every network, seeds averaged, the best first."""
    found = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        for c in COMPRESSIONS:
            clean, robust = (values(rows, one, arm, c) for one in (CLEAN, attack))
            if clean.size and robust.size:
                found.append(((1 - share) * clean.mean() + share * robust.mean(), arm, c))
    return sorted(found, key=lambda one: (-one[0], one[2]))


def mixed_table() -> str:
    """The best network by the share of attacked inputs, for each scenario."""
    rows, body = rows_of(), []
    for share in SHARES[::2]:
        line = [f"{100 * share:.0f} %"]
        for attack in SCENARIOS:
            best = mixed(rows, attack, share)[:1]
            line.append(f"{best[0][1]}, c = {best[0][2]}: {100 * best[0][0]:.1f}" if best else "–")
        body.append(line)
    return table("attacked", body, [attack.label for attack in SCENARIOS])


def transfer_table() -> str:
    """The attack made on the network itself and on the dense one, of the first seed, on 1,000 images."""
    rows, body = rows_of(), []
    for attack in ATTACKS[1:5]:
        for label, name in (("itself", PGD), ("the dense network", TRANSFER)):
            found = (values(rows, attack._replace(attack=name), DEEP, c, seed=0) for c in COMPRESSIONS)
            body.append([f"{attack.label}, made on {label}", *map(told, found)])
    return table("accuracy, %", body)


def sweet_spot_figure(rows: Sequence[Row]) -> Figure:
    """Accuracy over compression of weights by magnitude over the network, a line for each attack, a dot for each seed."""
    drawn = [attack for attack in ATTACKS if any(values(rows, attack, DEEP, c).size for c in COMPRESSIONS)]
    styles = arm_styles([attack.label for attack in drawn])
    with drawing():
        figure = empty_figure(8.2, 4.8)
        axes = figure.subplots()
        for attack in drawn:
            at = {c: 100 * found for c in COMPRESSIONS if (found := values(rows, attack, DEEP, c)).size}
            style = styles[attack.label]
            for c, found in at.items():
                axes.plot([c] * found.size, found, ".", color=style.colour, markersize=3)
            means = [found.mean() for found in at.values()]
            axes.plot(
                [*at], means, color=style.colour, linestyle=style.line, marker=style.marker, markersize=4, label=attack.label
            )
        _compressions(axes)
        axes.set_ylabel("accuracy, %")
        axes.legend(frameon=False, fontsize=8.5, ncol=2)
        title(figure, "Accuracy over compression: weights by magnitude over the network, CNN on MNIST")
        return figure


def methods_figure(rows: Sequence[Row]) -> Figure:
    """The best mixed accuracy by the share of attacked inputs: every network a thin line, the best at each share a thick one."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    styles = arm_styles(arms)
    shares = np.linspace(0, 1, 101)
    with drawing():
        figure = empty_figure(11.0, 4.4)
        for axes, attack in zip(figure.subplots(1, len(SCENARIOS)), SCENARIOS, strict=True):
            lines = {(arm, c): accuracy for accuracy, arm, c in mixed(rows, attack, 0.0)}
            ends = {(arm, c): accuracy for accuracy, arm, c in mixed(rows, attack, 1.0)}
            for (arm, c), clean in lines.items():
                axes.plot(shares, 100 * ((1 - shares) * clean + shares * ends[arm, c]), color=styles[arm].colour, linewidth=0.4)
            best = [mixed(rows, attack, share)[0] for share in shares] if lines else []
            axes.plot(shares[: len(best)], [100 * one[0] for one in best], color="#000000", linewidth=1.6)
            for before, now, share in zip(best, best[1:], shares[1:], strict=False):
                if before[1:] != now[1:]:
                    axes.axvline(share, color="#999999", linewidth=0.6)
            for network in dict.fromkeys(one[1:] for one in best):
                held = [share for share, one in zip(shares, best, strict=True) if one[1:] == network]
                axes.annotate(f"{network[0]}\nc = {network[1]}", (np.mean(held), 101), ha="center", fontsize=7)
            tidy(axes)
            axes.set_ylim(0, 112)
            axes.set_xlabel("share of attacked inputs")
            axes.set_title(attack.label, loc="left")
        title(figure, "The best network by the share of attacked inputs: accuracy, %")
        return figure


def transfer_figure(rows: Sequence[Row]) -> Figure:
    """Images made on the network itself and on the dense one."""
    styles = arm_styles([attack.label for attack in ATTACKS[1:5]])
    with drawing():
        figure = empty_figure(8.2, 4.4)
        axes = figure.subplots()
        for attack in ATTACKS[1:5]:
            for name, line, where in ((PGD, "-", "itself"), (TRANSFER, "--", "the dense network")):
                one = attack._replace(attack=name)
                at = {c: 100 * found.mean() for c in COMPRESSIONS if (found := values(rows, one, DEEP, c, seed=0)).size}
                axes.plot(
                    [*at], [*at.values()], line, color=styles[attack.label].colour, marker=".", label=f"{attack.label}, {where}"
                )
        _compressions(axes)
        axes.set_ylabel("accuracy, %")
        axes.legend(frameon=False, fontsize=8, ncol=2)
        title(figure, "Attacks made on the network itself and on the dense one")
        return figure


def _compressions(axes) -> None:
    tidy(axes)
    axes.set_xscale("log", base=2)
    axes.set_xticks(COMPRESSIONS, [str(c) for c in COMPRESSIONS])
    axes.set_xlabel("c, nominal compression")
    axes.set_ylim(0, 102)


TABLES: dict[str, Callable[..., str]] = {
    "faces-sweet-spot": sweet_spot_table,
    "faces-published": published_table,
    "faces-grid": grid_table,
    "faces-mixed": mixed_table,
    "faces-transfer": transfer_table,
}
FIGURES: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "sweet_spot": sweet_spot_figure,
    "methods": methods_figure,
    "transfer": transfer_figure,
}
PAGE = Path(__file__).parent / "faces.md"
