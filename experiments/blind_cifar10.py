"""The blind budget on CIFAR-10, ResNet-8: the candidates of ``choice.py`` beside uniform 2, 4, 8 and 12/255, 1,500 steps.

Command: ``python -m experiments.blind_cifar10 --data-dir DIR --together loop --publish``, or ``bap sweep
experiments/blind_cifar10.py --out DIR --data-dir DIR --together loop``. One cell after the other (``--together loop``) in the
order of the arms, so that a run that is stopped early has the most useful part; ``--seeds 1`` first does all arms once. The same
command goes on where it was stopped.

Run time: 24 cells, 22 to 28 minutes each on one core (0.77 s for a uniform step, 1.0 s for a blind one, on one that was shared):
five hours for one seed, seventeen minutes a cell on a free one. Two cores: ``--seed 0`` and ``--seed 1`` side by side, each with
an ``--out`` of its own. Three arms of seed 0 are published.

1,500 steps of batch 64, PGD-3 in training, 80 % sparse, a ramp to half of the training, PGD-20 at {0, 1, 2, 4, 8, 12}/255. The
networks are still far from trained: what is compared is arms that all had the same.
"""

from __future__ import annotations

import dataclasses

from bap_jax.runs.plan import AttackPlan
from experiments.arms import CANDIDATES, NT_PRUNE, Arm
from experiments.cifar10_resnet8 import SWEEP as REDUCED

PLAN = AttackPlan(attack="pgd", norm="linf", epsilon="0,1/255,2/255,4/255,8/255,12/255", steps=20, limit=500)
UNIFORM: tuple[Arm, ...] = tuple({"budget": "uniform", "epsilon": f"{epsilon}/255"} for epsilon in (8, 4, 12, 2))
BLIND = CANDIDATES
ARMS = (
    BLIND[0],
    UNIFORM[0],
    BLIND[3],
    BLIND[1],
    UNIFORM[1],
    BLIND[2],
    BLIND[4],
    UNIFORM[2],
    BLIND[5],
    BLIND[6],
    UNIFORM[3],
    NT_PRUNE,
)

SWEEP = dataclasses.replace(
    REDUCED,
    title="The blind budget on CIFAR-10",
    base=dataclasses.replace(REDUCED.base, steps=1500),
    arms=ARMS,
    epsilons=(),
    seeds=range(2),
    plans=(dataclasses.replace(PLAN, split="validation", limit=250), PLAN),
    notes=("1,500 steps of batch 64: the networks are far from trained.",),
)

if __name__ == "__main__":
    from experiments.common import main

    main("blind_cifar10", SWEEP, __doc__, least_clean=0.2)
