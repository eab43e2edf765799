"""Draws the tables of README.md and experiments/README.md from the CSVs in experiments/results/.

Command: ``python -m experiments.tables`` rewrites both; ``--check`` only says whether they are what the CSVs give.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bap_jax.report import Interval, aer_score, bootstrap, cell_interval, make_grid, read_csv, scenes_of, stability
from experiments.common import RESULTS

ROOT = Path(__file__).parent.parent
Row = dict[str, Any]


def rows_of(name: str, split: str = "test") -> list[Row]:
    """The rows of a published CSV, of one split."""
    return [row for row in read_csv(RESULTS / f"{name}.csv") if row["split"] == split]


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def score_table(name: str, split: str = "test") -> str:
    """Arms × sparsities: mean accuracy over epsilon; AER score with its interval over seeds; stability over processes."""
    rows = rows_of(name, split)
    grid = make_grid(rows, scenes_of(rows)[0])
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
    rows = rows_of(name)
    grid = make_grid(rows, scenes_of(rows)[0])
    header = ["arm, sparsity", *("clean" if e == 0 else f"ε {e:g}" for e in grid.epsilons)]
    body = [
        [f"{arm}, {100 * sparsity:g} %", *(with_interval(cell_interval(accuracy[s, e])) for e in range(len(grid.epsilons)))]
        for arm, accuracy in zip(grid.arms, grid.accuracy, strict=True)
        for s, sparsity in enumerate(grid.sparsities)
    ]
    return table(header, body)


def with_interval(interval: Interval) -> str:
    half = (interval.high - interval.low) / 2
    return percent(float(interval.value)) + ("" if np.isnan(half) else f" ±{100 * half:.1f}")


def versions_of(name: str) -> str:
    """What the numbers were measured with."""
    return "; ".join(dict.fromkeys(str(row["versions"]) for row in rows_of(name)))


def fill(text: str) -> str:
    """The text with every block ``<!-- table KIND NAME [SPLIT] --> ... <!-- end -->`` drawn anew."""
    parts = text.split("<!-- table ")
    filled = [parts[0]]
    for part in parts[1:]:
        what, rest = part.split(" -->", 1)
        kind, *arguments = what.split()
        draw = {"scores": score_table, "cells": cell_table, "versions": versions_of}[kind]
        filled.append(f"<!-- table {what} -->\n{draw(*arguments)}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}")
    return "".join(filled)


def main() -> int:
    stale = 0
    for path in (ROOT / "README.md", ROOT / "experiments" / "README.md"):
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
