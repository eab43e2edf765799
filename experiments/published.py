"""The published numbers: where they are, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bap_jax.report import read_csv

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
CELL = ("data", "model", "arm", "process", "sparsity", "seed")  # what tells one trained network from another


def published_rows(name: str, split: str = "test") -> list[Row]:
    """The rows of a published CSV, of one split."""
    return [row for row in read_csv(RESULTS / f"{name}.csv") if row["split"] == split]


def cell_of(row: Row) -> tuple[str, ...]:
    """Which network a row is about, read from a CSV or not."""
    numbers = {"sparsity": f"{float(row['sparsity']):g}", "seed": str(int(row["seed"]))}
    return tuple(numbers.get(name, str(row[name])) for name in CELL)


def cells_in(name: str) -> set[tuple[str, ...]]:
    """The networks that a published CSV holds; none where there is no such file."""
    path = RESULTS / f"{name}.csv"
    return {cell_of(row) for row in read_csv(path)} if path.is_file() else set()


def taken_in(name: str, rows: Sequence[Row]) -> list[Row]:
    """The rows of a published CSV with these: of a network that both hold, these alone."""
    path, new = RESULTS / f"{name}.csv", {cell_of(row) for row in rows}
    before = read_csv(path) if path.is_file() else []
    return [*(row for row in before if cell_of(row) not in new), *rows]
