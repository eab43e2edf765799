"""Cascades such as AutoAttack: what is left after each of their attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bap_jax.report.rows import CLEAN, format_epsilon, format_sparsity, in_order
from bap_jax.report.table import MISSING, Cell, Table, percent

LABELS = ("data", "model", "arm", "sparsity", "epsilon")


def stage_tables(stages: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table per cascade: the robust accuracy after each attack, in the order in which they ran.

    Args:
      stages: one dict per cascade, network, radius and stage, with ``cascade``, ``stage`` (the first may be ``clean``),
        ``accuracy`` and the columns of :data:`LABELS`. Accuracies of several seeds and processes are averaged.

    Returns:
      The tables, cascades in order of first appearance.
    """
    tables = []
    for name in in_order(str(row["cascade"]) for row in stages):
        mine = [row for row in stages if str(row["cascade"]) == name]
        order = in_order(str(row["stage"]) for row in mine)
        lines = []
        for key in in_order(tuple(row[label] for label in LABELS) for row in mine):
            data, model, arm, sparsity, epsilon = key
            cells = [Cell(str(data)), Cell(str(model)), Cell(str(arm))]
            cells += [Cell(format_sparsity(sparsity), sparsity), Cell(format_epsilon(epsilon), epsilon)]
            group = [row for row in mine if tuple(row[label] for label in LABELS) == key]
            cells += [_after([row["accuracy"] for row in group if str(row["stage"]) == stage]) for stage in order]
            lines.append(tuple(cells))
        columns = (
            "data",
            "model",
            "arm",
            "sparsity",
            "ε",
            *("clean, %" if stage == CLEAN else f"after {stage}, %" for stage in order),
        )
        note = "Each attack is run on the examples that those before it left; the last column is the cascade's robust accuracy. "
        note += "Means over processes and seeds."
        tables.append(Table(f"{name}: robust accuracy after each attack", columns, tuple(lines), note, num_labels=5))
    return tables


def _after(values: Sequence[float]) -> Cell:
    if not values:
        return Cell(MISSING)
    mean = float(np.mean(values))
    return Cell(percent(mean), mean)
