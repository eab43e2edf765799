"""CIFAR-10, reduced: ResNet-8, clean, uniform 8/255 and blind with the blind settings of digits, 300 steps, one seed.

Command: ``python -m experiments.cifar10_resnet8 --data-dir DIR --publish``, or ``bap sweep experiments/cifar10_resnet8.py
--out DIR --data-dir DIR``. It is reduced to what two cores do in minutes: the networks are far from trained, and one seed gives
no interval. It shows that the arms run on real colour images; it says nothing about the paper's claims.
``experiments/cifar10_full.py`` would.

Run time: 3 cells in 12 minutes on one core of an AMD EPYC (jax 0.10.2). What it showed: after 300 steps the blind arm lies
between clean and uniform 8/255 training in accuracy and in robustness.
"""

from __future__ import annotations

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep
from experiments.arms import AP_PGD, BAP, NT_PRUNE

EPSILONS = "0,2/255,4/255,8/255"

SWEEP = Sweep(
    title="CIFAR-10, reduced: 300 steps, one seed",
    base=Settings(
        data="cifar10",
        model="resnet8",
        steps=300,
        batch_size=64,
        attack_steps=3,
        augment=True,
        validations=1,
        validation_limit=64,
    ),
    arms=(NT_PRUNE, AP_PGD, BAP),
    epsilons=("8/255",),
    sparsities=(0.8,),
    processes=(Process(0.0, 0.5),),
    seeds=(0,),
    plans=(AttackPlan(attack="pgd", norm="linf", epsilon=EPSILONS, limit=256),),
    notes=("A reduced run: 300 steps of batch 64, one seed, 256 test images. The networks are far from trained.",),
)

if __name__ == "__main__":
    from experiments.common import main

    main("cifar10_resnet8", SWEEP, __doc__, least_clean=0.2)
