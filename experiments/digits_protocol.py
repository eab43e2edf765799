"""The paper's own protocol on digits (one DeepFool and one FGSM perturbation, cut to each budget) beside attacks at each budget.

Command: ``python -m experiments.digits_protocol --publish``, or ``bap sweep experiments/digits_protocol.py --out DIR``. Budgets
are the paper's: RMS for DeepFool, element-wise for FGSM. PGD in the same norms, and APGD-T, tell what the networks withstand.

Run time: 72 cells in 15 minutes on one core of an AMD EPYC (jax 0.10.2). What it showed (README.md has the numbers): cut points
order the arms as attacks in the same norm do, and are too kind where gradients mislead; which arm wins depends on the norm.
"""

from __future__ import annotations

import dataclasses

from bap_jax.runs.plan import AttackPlan
from experiments.digits_aer import SWEEP as DIGITS

BUDGETS = "0,0.01,0.05,0.1,0.15,0.2"  # the paper's

SWEEP = dataclasses.replace(
    DIGITS,
    title="The paper's protocol beside real attacks",
    epsilons=("0.1", "0.3"),
    sparsities=(0.9,),
    seeds=range(3),
    plans=(
        AttackPlan(attack="pgd", norm="rms,linf", epsilon=BUDGETS),
        AttackPlan(attack="apgd-t", norm="linf", epsilon=BUDGETS),
        AttackPlan(attack="deepfool-truncated,fgsm-truncated", norm="rms,linf", epsilon=BUDGETS),
    ),
)

if __name__ == "__main__":
    from experiments.common import main

    main("digits_protocol", SWEEP, __doc__)
