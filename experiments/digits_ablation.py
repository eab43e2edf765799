"""The parts of cutoff-scale on digits, and other values of cutoff, scale and epsilon_max, on validation and test data.

Command: ``python -m experiments.digits_ablation --publish``, or ``bap sweep experiments/digits_ablation.py --out DIR``.

Run time: 204 cells in 23 minutes on one core of an AMD EPYC that was shared (jax 0.10.2). What it showed (README.md has the
numbers): cutting and scaling earn a third of a point over a fresh attack at the bare margin; the fresh attack earns five.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from bap_jax.cli.screen import console
from bap_jax.sweeps.demo import FAST, SLOW
from experiments.arms import BAP, BAP_BY_DEEPFOOL, BY_DEEPFOOL_CUT_ONLY, BY_DEEPFOOL_SCALE_ONLY, UNRESTRICTED, Arm
from experiments.digits_aer import SWEEP as DIGITS

ARMS: tuple[Arm, ...] = (
    BAP,  # cutoff at the batch mean, scale 1.2, a fresh attack
    {**BAP, "scale": 0.8},
    {**BAP, "scale": 1.0},  # cut only
    {**BAP, "scale": 1.4},
    {**BAP, "cutoff": "off"},  # scale only
    {**BAP, "cutoff": "off", "scale": 1.0},  # unrestricted: neither
    {**BAP, "cutoff": "quantile:0.5"},
    {**BAP, "cutoff": "running-mean:0.99"},
    {**BAP, "cutoff": "constant:0.3"},
    {**BAP, "epsilon_max": 0.5},
    {**BAP, "search_steps": 2},
    {**BAP, "example": "rescaled"},
    {"search": "deepfool"},  # another source of the margins, the same fresh attack
    BAP_BY_DEEPFOOL,
    BY_DEEPFOOL_CUT_ONLY,
    BY_DEEPFOOL_SCALE_ONLY,
    UNRESTRICTED,
)

SWEEP = dataclasses.replace(
    DIGITS,
    title="The parts of cutoff-scale",
    arms=ARMS,
    epsilons=(),
    sparsities=(0.8, 0.97),
    processes=(FAST, SLOW),
    seeds=range(3),
)


def show_scores(records: Sequence[dict[str, Any]]) -> None:
    """Mean accuracy over the grid per arm, on validation and test data."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        arm = record["rows"][0]["arm"]
        scores[arm, record["plan"]["split"]].append(100 * float(np.mean([row["accuracy"] for row in record["rows"]])))
    table = Table("arm", "validation", "test", title="mean accuracy over the grid, %", title_justify="left")
    for arm in dict.fromkeys(arm for arm, _ in scores):
        table.add_row(arm, *(f"{np.mean(scores[arm, split]):.1f}" for split in ("validation", "test")))
    console().print(table)


if __name__ == "__main__":
    from experiments.common import main

    show_scores(main("digits_ablation", SWEEP, __doc__))
