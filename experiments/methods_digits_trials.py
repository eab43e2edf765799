"""The trials of ``methods_digits.py``: every method with three choices of optimiser and rate, judged on validation data.

Command: ``python -m experiments.methods_digits_trials --together loop --publish``, or ``bap sweep
experiments/methods_digits_trials.py --out DIR --together loop``. 90 % sparse, seed 0, PGD-20 on validation data alone. It
prints, of every method, the AER score of each trial; ``methods_digits.py`` takes the best of them out of the CSV.

Run time: 40 cells and two networks to begin with, to be expected to take twenty minutes on one free core.
"""

from __future__ import annotations

import dataclasses

from bap_jax.runs.report_inputs import rows_of
from experiments.methods_digits import PLANS, TRIED, scores
from experiments.methods_digits import SWEEP as DIGITS

SWEEP = dataclasses.replace(
    DIGITS,
    title="Trials of the field's methods on digits",
    arms=tuple(arm for arms in TRIED.values() for arm in arms),
    sparsities=(0.9,),
    seeds=(0,),
    plans=PLANS[:1],
)

if __name__ == "__main__":
    from experiments.common import main

    for method, of_trials in scores(rows_of(main("methods_digits_trials", SWEEP, __doc__, least_clean=0.0))).items():
        print(f"{method}: " + ", ".join(f"{100 * score:.1f}" for score in of_trials))
