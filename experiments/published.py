"""The published numbers: where they are, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bap_jax.report import read_csv

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def rows_of(name: str, split: str = "test") -> list[Row]:
    """The rows of a published CSV, of one split."""
    return [row for row in read_csv(RESULTS / f"{name}.csv") if row["split"] == split]
