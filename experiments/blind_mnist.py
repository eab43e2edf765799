"""The blind budget on MNIST, LeNet-5: the candidates of ``choice.py`` beside uniform budgets.

Command: ``python -m experiments.blind_mnist --data-dir DIR --together loop --publish``, or ``bap sweep
experiments/blind_mnist.py --out DIR --data-dir DIR --together loop``. One cell after the other (``--together loop``) in the order
of the arms, so that a run that is stopped early has the most useful part; ``--seeds 1`` first does all arms once. The same
command goes on where it was stopped.

The training is that of ``mnist_lenet5.py``, with one ramp, which ends at half of the training.

Run time: 32 cells, about three minutes each on one free core. Seed 0 is published, seed 1 was not run so far.
"""

from __future__ import annotations

import dataclasses

from bap_jax.sweeps.grid import Process
from experiments.arms import CANDIDATES, NT_PRUNE, PARTS, Arm
from experiments.mnist_lenet5 import PLAN
from experiments.mnist_lenet5 import SWEEP as MNIST

UNIFORM: tuple[Arm, ...] = tuple({"budget": "uniform", "epsilon": epsilon} for epsilon in ("0.3", "0.2", "0.1"))

SWEEP = dataclasses.replace(
    MNIST,
    title="The blind budget on MNIST",
    arms=(UNIFORM[0], *CANDIDATES[:4], *UNIFORM[1:], *CANDIDATES[4:], *PARTS, NT_PRUNE),
    epsilons=(),
    processes=(Process(0.0, 0.5),),
    seeds=range(2),
    plans=(dataclasses.replace(PLAN, split="validation"), PLAN),
)

if __name__ == "__main__":
    from experiments.common import main

    main("blind_mnist", SWEEP, __doc__)
