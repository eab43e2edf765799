"""The paper's three claims on real MNIST, LeNet-5: clean, uniform budgets and blind, with the blind settings of digits.

Command: ``python -m experiments.mnist_lenet5 --data-dir DIR --publish``, or ``bap sweep experiments/mnist_lenet5.py --out DIR
--data-dir DIR`` (the data's DIR holds prepared TFDS data sets). This is the part of the grid that two cores train in 90 minutes;
``experiments/mnist_lenet5_full.py`` is the whole.

Run time: 30 cells in 80 minutes on two cores of an AMD EPYC, a sweep per core (jax 0.10.2). What it showed (README.md has the
numbers): clean pruning's robustness varies over ramps three times as much as its clean accuracy; adversarial pruning moves by 18
points with its budget; blind pruning is ahead of two of three uniform budgets and not told apart from the best.
"""

from __future__ import annotations

import dataclasses

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep
from experiments.arms import AP_PGD, BAP, NT_PRUNE

PLAN = AttackPlan(attack="pgd", norm="linf", epsilon="0,0.1,0.2,0.3", steps=20, limit=500)

SWEEP = Sweep(
    title="The claims of the paper on MNIST",
    base=Settings(
        data="mnist", model="lenet5", steps=500, batch_size=64, attack_steps=4, validations=1, validation_limit=100, log_every=10
    ),
    arms=(NT_PRUNE, AP_PGD, BAP),
    epsilons=("0.1", "0.2", "0.3"),
    sparsities=(0.95,),
    processes=(Process(0.0, 0.2), Process(0.0, 0.8)),
    seeds=range(3),
    plans=(dataclasses.replace(PLAN, split="validation", limit=250), PLAN),
)

if __name__ == "__main__":
    from experiments.common import main

    main("mnist_lenet5", SWEEP, __doc__)
