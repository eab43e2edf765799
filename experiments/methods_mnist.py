"""PwoA on MNIST, as published and with all kernels pruned, beside what else can be made of the same robust network.

Command: ``python -m experiments.methods_mnist --data-dir DIR --together loop --publish``, or ``bap sweep
experiments/methods_mnist.py --out DIR --data-dir DIR --together loop``. The same command goes on where it was stopped; the first
seed comes first.

PwoA's LeNet (conv 32-64, fc 1024, fc 10). A teacher for each seed is trained by PGD-7 at ε 0.3, 1,500 steps of batch 64; every
arm but the blind ones begins with it and has 600 steps more: adversarial fine-tuning, clean fine-tuning of the largest weights
(plain magnitude), HYDRA, PwoA; blind pruning and blind HYDRA begin with a blind network of 1,000 steps, which costs as many
passes. 4 and 16 times fewer weights, of *all* kernels; beside it PwoA's own count, convolutions alone, whose
``compression_ratio`` says what it comes to in all. PwoA's ADMM looks at the sparse weights 51 times, as published, but every 4
steps, not every epoch. PGD-40, and AutoAttack on 1,000 images.

Run time: 42 cells and six networks to begin with. Not run so far; one core would take about six hours.
"""

from __future__ import annotations

import dataclasses

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep
from experiments.arms import BAP, Arm, field_methods, with_looks, with_optimiser

BASE = Settings(
    data="mnist",
    model="lenet5",
    batch_size=64,
    steps=600,
    validations=1,
    validation_limit=200,
    log_every=50,
    **{"model.hidden": 1024},
)
RADIUS = 0.3
EXAMPLES: Arm = {"attack.num_steps": 7, "attack.step_size": 2.5 / 7}
STARTS: dict[str, Arm] = {
    "robust": {
        **EXAMPLES,
        "pruner": "dense",
        "budget": "uniform",
        "epsilon": RADIUS,
        "loss": "madry",
        "label_smoothing": 0.0,
        "steps": 1500,
    },
    "blind": {**BAP, "pruner": "dense", "steps": 1000},
}
_FIELD = field_methods(RADIUS, EXAMPLES)
_FREE: Arm = {"init_from": "starts/robust"}
METHODS: dict[str, Arm] = {
    "pwoa": _FIELD["pwoa"],
    "ap": {**_FIELD["ap 0.3"], **_FREE},
    "bap": {**_FIELD["bap"], "init_from": "starts/blind"},
    "hydra": _FIELD["hydra"],
    "bap hydra": _FIELD["bap hydra"],
    "magnitude": {"method": "nt", **_FREE},
    "pwoa, convolutions": {"method": "pwoa", **_FREE},
}
ARMS: tuple[Arm, ...] = tuple(
    with_looks(arm, 4) if name.startswith("pwoa") else with_optimiser(arm, BASE, ("adam", 1e-3, 1e-3))
    for name, arm in METHODS.items()
)
PLAN = AttackPlan(attack="pgd", norm="linf", epsilon="0,0.1,0.2,0.3", steps=40, limit=1000)

SWEEP = Sweep(
    title="PwoA and others from one robust network on MNIST",
    base=BASE,
    arms=ARMS,
    starts=STARTS,
    sparsities=(0.75, 0.9375),
    processes=(Process(0.0, 0.5),),
    seeds=range(3),
    plans=(
        dataclasses.replace(PLAN, split="validation", limit=500),
        PLAN,
        dataclasses.replace(PLAN, attack="autoattack", epsilon="0,0.2,0.3", steps=None),
    ),
)
PARTS = (dataclasses.replace(SWEEP, seeds=(0,)), SWEEP)

if __name__ == "__main__":
    from experiments.common import main_in_parts

    main_in_parts("methods_mnist", PARTS, __doc__)
