"""The trials of ``methods_digits.py``: every method with four choices of optimiser and rate, judged on validation data.

Command: ``python -m experiments.methods_digits_trials --together loop``, or ``bap sweep experiments/methods_digits_trials.py
--out DIR --together loop``. 90 % sparse, seed 0, PGD-20 on validation data alone. It prints, of every method, the AER score of
each trial; ``CHOSEN`` in ``methods_digits.py`` says the best of them, the earlier of equals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from bap_jax.runs.naming import arm_of
from experiments.arms import with_optimiser
from experiments.methods_digits import BASE, METHODS, PLANS, TOTAL, TRIALS, as_long_as
from experiments.methods_digits import SWEEP as DIGITS

TRIED = {
    (name, number): as_long_as(with_optimiser(arm, BASE, trial), TOTAL)
    for name, arm in METHODS.items()
    for number, trial in enumerate(TRIALS)
}

SWEEP = dataclasses.replace(
    DIGITS,
    title="Trials of the field's methods on digits",
    arms=tuple(TRIED.values()),
    sparsities=(0.9,),
    seeds=(0,),
    plans=PLANS[:1],
)


def scores(records: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Method -> the AER score of each of its trials, NaN where there is none."""
    found: dict[str, float] = {}
    for record in records:
        accuracies = {row["epsilon"]: row["accuracy"] for row in record["rows"]}
        found[record["rows"][0]["arm"]] = float(np.mean(list(accuracies.values())))
    names = {key: arm_of(BASE.changed(**arm)) for key, arm in TRIED.items()}
    return {method: [found.get(names[method, number], np.nan) for number in range(len(TRIALS))] for method in METHODS}


if __name__ == "__main__":
    from experiments.common import main

    for method, of_trials in scores(main("methods_digits_trials", SWEEP, __doc__, least_clean=0.0)).items():
        print(f"{method}: " + ", ".join(f"{100 * score:.1f}" for score in of_trials) + f"; best {int(np.nanargmax(of_trials))}")
