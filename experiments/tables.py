"""Draws the tables of README.md, experiments/README.md, experiments/faces.md from the CSVs in experiments/results/, and that of
docs/measures.md.

Command: ``python -m experiments.tables`` rewrites them; ``--check`` only says whether they are what the CSVs give.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bap_jax.report import Interval, aer_score, bootstrap, cell_interval, comparisons_of, make_grid, measures, page, stability
from bap_jax.report.rows import format_epsilon, format_sparsity, sparsity_of
from bap_jax.runs.parsing import format_radius
from experiments import compressions
from experiments.choice import standings
from experiments.published import Row, published_rows

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "experiments" / "README.md", compressions.PAGE, ROOT / "docs" / "measures.md")


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def score_table(name: str, split: str = "test") -> str:
    """Arms × sparsities: mean accuracy over epsilon; AER score with its interval over seeds; stability over processes."""
    rows = published_rows(name, split)
    grid = make_grid(rows, comparisons_of(rows)[0])
    header = ["arm", *(f"{100 * s:g} % sparse" for s in grid.sparsities), "AER score [95 %]", "stability"]
    body = []
    for arm, accuracy in zip(grid.arms, grid.accuracy, strict=True):
        means = [percent(float(np.mean(accuracy[s]))) for s in range(len(grid.sparsities))]
        interval = bootstrap(accuracy, aer_score)
        spread = percent(float(interval.value))
        if not np.isnan(interval.low):
            spread += f" [{percent(float(interval.low))}, {percent(float(interval.high))}]"
        body.append([arm, *means, spread, percent(float(stability(accuracy)))])
    return table(header, body)


def cell_table(name: str) -> str:
    """Arms × (sparsity, epsilon): mean accuracy over processes and seeds, ± half the 95 % bootstrap interval over seeds."""
    rows = published_rows(name)
    grid = make_grid(rows, comparisons_of(rows)[0])
    header = ["arm, sparsity", *("clean" if e == 0 else f"ε {format_epsilon(e)}" for e in grid.epsilons)]
    body = [
        [f"{arm}, {100 * sparsity:g} %", *(with_interval(cell_interval(accuracy[s, e])) for e in range(len(grid.epsilons)))]
        for arm, accuracy in zip(grid.arms, grid.accuracy, strict=True)
        for s, sparsity in enumerate(grid.sparsities)
    ]
    return table(header, body)


def with_interval(interval: Interval) -> str:
    half = (interval.high - interval.low) / 2
    return percent(float(interval.value)) + ("" if np.isnan(half) else f" ±{100 * half:.1f}")


def points(interval: measures.Interval) -> tuple[str, str]:
    """A difference of accuracies in points, and its interval."""
    value, low, high = (f"{round(100 * float(number), 1) + 0.0:.1f}" for number in interval)  # + 0.0: no “-0.0”
    return "–" if math.isnan(interval.value) else value, f"{low} … {high}" if interval.known else "–"


def decided(interval: measures.Interval, above: str, below: str) -> str:
    """What an interval says of a difference: on which side of 0 it lies, if on one."""
    if not interval.known:
        return "no interval"
    return above if interval.low > 0 else below if interval.high < 0 else "open: the interval holds 0"


def claims_table(name: str, blind: str = "blind", clean: str = "clean") -> str:
    """The paper's three claims, each as numbers with intervals over seeds, under the first attack of a CSV.

    The best uniform budget is chosen on validation data; on test data, and then it says so, where none is published.
    """
    rows, held_out = published_rows(name), published_rows(name, "validation")
    blind, clean = (arm.replace("_", " ") for arm in (blind, clean))
    test = make_grid(rows, comparisons_of(rows)[0])
    uniform = [arm for arm in measures.uniform_arms(rows) if arm in test.arms]
    body: list[Sequence[str]] = []

    def line(what: str, interval: measures.Interval, verdict: str = "") -> None:
        body.append([what, *points(interval), verdict])

    if clean in test.arms:
        spreads = measures.process_spread(test, clean, sparsities=True)
        worst = max(range(len(spreads)), key=lambda place: np.nan_to_num(spreads[place].value, nan=-1.0))
        apart = spreads[worst].known and spreads[worst].low > spreads[0].high
        line(f"1. {clean}: spread over processes and sparsities, ε {format_epsilon(test.epsilons[0])}", spreads[0])
        at = format_epsilon(test.epsilons[worst])
        line(f"the same where it is largest, ε {at}", spreads[worst], "larger" if apart else "not told apart")
    families = {name: arms for name, arms in families_of(rows, uniform).items() if len(arms) > 1}
    for name, arms in families.items():
        radii = ", ".join(format_radius(radius_of(rows, arm)) for arm in arms)
        line(f"2. budget sensitivity, {name}, ε {radii}", measures.budget_sensitivity(test, arms))
    if blind in test.arms:
        if families:
            line(f"{blind}: own spread over seeds", measures.own_spread(test, blind))
        for name, arms in families.items():
            excess = measures.excess_sensitivity(test, arms, blind)
            line(f"budget sensitivity of {name} − own spread", excess, decided(excess, "more than chance", "less than chance"))
        for other, gap in measures.stability_differences(test, blind, uniform).items():
            line(f"3. stability, {blind} − {other}", gap, decided(gap, "less steady", "steadier"))
        if uniform:
            where = "validation" if held_out else "test"
            other_grid = make_grid(held_out or rows, comparisons_of(held_out or rows)[0])
            chosen = measures.difference_from_best(test, other_grid, blind, uniform)
            what = f"AER score, {blind} − {chosen.arm}, the best uniform budget on {where} data"
            line(what, chosen.difference, decided(chosen.difference, "ahead", "behind"))
    return table(["points", "value", "95 % interval", "so"], body)


def differences_table(name: str, arm: str = "blind") -> str:
    """AER score of one arm minus that of each other, paired by seed, under the first attack of a CSV."""
    rows, arm = published_rows(name), arm.replace("_", " ")
    grid = make_grid(rows, comparisons_of(rows)[0])
    gaps = {other: measures.difference(grid, arm, other) for other in grid.arms if other != arm}
    body = [[f"{arm} − {other}", *points(gap), decided(gap, "ahead", "behind")] for other, gap in gaps.items()]
    return table(["AER score, points", "value", "95 % interval", "so"], body)


def standings_table(name: str) -> str:
    """Blind arms on test data: AER score, what it is above the best uniform budget, chosen on validation data, and the regret."""
    rows, held_out = published_rows(name), published_rows(name, "validation")
    test, other = (make_grid(some, comparisons_of(some)[0]) for some in (rows, held_out))
    uniform, stand = [arm for arm in measures.uniform_arms(rows) if arm in test.arms], standings(rows)
    body = []
    for arm, accuracy in zip(test.arms, test.accuracy, strict=True):
        if arm in stand:
            chosen = measures.difference_from_best(test, other, arm, uniform)
            gap, spread = points(chosen.difference)
            numbers = percent(float(aer_score(accuracy))), gap, spread, f"{stand[arm].regret:.1f}"
            body.append([arm, *numbers, decided(chosen.difference, "ahead", "behind")])
    best = measures.best_arm(other, uniform)
    return table(["arm", "AER score", f"− {best}", "95 % interval", "regret", "so"], body)


def radius_of(rows: Sequence[Row], arm: str) -> float:
    """The radius that the training of an arm was given."""
    return next(float(row["train_epsilon"]) for row in rows if row["arm"] == arm)


def families_of(rows: Sequence[Row], arms: Sequence[str]) -> dict[str, list[str]]:
    """Uniform arms by what they have in common but the radius: the attack and the loss of training, the loss mix being untold.

    Example:
      >>> rows = [{"arm": arm, "train_attack": how, "loss": "mix"} for arm, how in (("a", "pgd"), ("b", "fgsm"), ("c", "pgd"))]
      >>> families_of(rows, ["a", "b", "c"])
      {'pgd': ['a', 'c'], 'fgsm': ['b']}
    """
    families: dict[str, list[str]] = {}
    for arm in arms:
        row = next(row for row in rows if row["arm"] == arm)
        told = [str(row["train_attack"])] + ([] if row["loss"] == "mix" else [f"loss {row['loss']}"])
        families.setdefault(", ".join(told), []).append(arm)
    return families


def readings_table(name: str) -> str:
    """Arms × attacks: AER score with its interval; cut points stand beside real attacks, and say what they are."""
    rows = published_rows(name)
    grids = [make_grid(rows, comparison) for comparison in comparisons_of(rows)]
    arms = list(dict.fromkeys(arm for grid in grids for arm in grid.arms))
    measured = [measures.measure(grid) for grid in grids]
    body = [[arm, *(with_interval(m[arm].aer_score) if arm in m else "–" for m in measured)] for arm in arms]
    agreement = [measures.rank_agreement(grids[0], grid) for grid in grids]
    body.append(["rank agreement with the first", *("–" if np.isnan(tau) else f"{tau:.2f}" for tau in agreement)])
    return table(
        ["AER score", *(f"{grid.comparison.attack_label}, ε ≤ {format_epsilon(grid.epsilons[-1])}" for grid in grids)], body
    )


def sizes_table(name: str) -> str:
    """Arms × sparsities: what a network takes, mean over processes and seeds."""
    rows = published_rows(name)
    columns = {"nonzero": "non-zero", "bytes_dense": "bytes, dense", "bytes": "bytes, packed"}
    columns |= {"flops_dense": "FLOPs, dense", "flops_sparse": "FLOPs, sparse"}
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["arm"]), sparsity_of(row)), []).append(row)
    body = []
    for (arm, sparsity), group in groups.items():
        values = [[row[column] for row in group if row.get(column) is not None] for column in columns]
        body.append([f"{arm}, {format_sparsity(sparsity)}", *(f"{np.mean(found):,.0f}" if found else "–" for found in values)])
    return table(["arm, sparsity", *columns.values()], body)


def definitions_table() -> str:
    """What every number means: the sentences that reports print, and those of the measures beyond them."""
    lines = [f"| {name} | {text} |" for name, text in {**page.DEFINITIONS, **measures.DEFINITIONS}.items()]
    return "\n".join(["| name | definition |", "| --- | --- |", *lines])


def versions_of(name: str) -> str:
    """What the numbers were measured with."""
    return "; ".join(dict.fromkeys(str(row["versions"]) for row in published_rows(name)))


def fill(text: str) -> str:
    """The text with every block ``<!-- table KIND NAME ... --> ... <!-- end -->`` drawn anew, by a function of :data:`DRAWN`.

    What follows the kind are the function's arguments; ``_`` stands for a blank in an arm's name.
    """
    parts = text.split("<!-- table ")
    filled = [parts[0]]
    for part in parts[1:]:
        what, rest = part.split(" -->", 1)
        kind, *arguments = what.split()
        draw = DRAWN[kind]
        filled.append(f"<!-- table {what} -->\n{draw(*arguments)}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}")
    return "".join(filled)


DRAWN: dict[str, Callable[..., str]] = {
    "scores": score_table,
    "cells": cell_table,
    "claims": claims_table,
    "differences": differences_table,
    "standings": standings_table,
    "readings": readings_table,
    "sizes": sizes_table,
    "versions": versions_of,
    "definitions": definitions_table,
    **compressions.TABLES,
}


def main() -> int:
    stale = 0
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        new = fill(text)
        if new != text:
            stale += 1
            print(f"{path.name}: " + ("not what the CSVs give" if "--check" in sys.argv else "rewritten"))
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
