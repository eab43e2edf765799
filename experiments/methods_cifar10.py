"""The field's methods beside adversarial and blind pruning on CIFAR-10, ResNet-8, on two cores.

Command: ``python -m experiments.methods_cifar10 --data-dir DIR --together loop --publish``, or ``bap sweep
experiments/methods_cifar10.py --out DIR --data-dir DIR --together loop``. The same command goes on where it was stopped; all
methods at 95 % come first, then 90 and 99 %.

Methods that need a trained network begin with one that is trained robustly for 2,000 steps of batch 128; from there every arm
has 1,000 steps, those that train from random weights 3,000. Examples by N-FGSM, whose budget is 8/255 and which leaves it by
design, so that a step costs 6 passes per image where PGD-10 costs 33; validation by PGD watches for catastrophic overfitting. All
arms have SGD at 0.05 with momentum and their own schedule, PwoA what it was published with. What methods do once an epoch they
do more often here, as there are three epochs: ADMM looks every 6 or 10 steps, HARP's factor is that of its tenth epoch, MAD's
saliency is the mean over 50 batches. Steps are equal, not passes: the report's table of costs tells those. PGD-20 on 500 images,
APGD-T on 200.

Run time: 48 cells and two networks to begin with, one seed. Not run so far; one core would take about eight hours. The networks
are still far from trained: what is compared is arms that all had the same.
"""

from __future__ import annotations

import dataclasses

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep
from experiments.arms import BAP, Arm, field_methods, with_looks, with_optimiser

BASE = Settings(
    data="cifar10", model="resnet8", batch_size=128, steps=1000, augment=True, validations=1, validation_limit=200, log_every=50
)
RADIUS, LONG = 8 / 255, 3000
EXAMPLES: Arm = {"attack": "n-fgsm"}
SGD = ("sgd", 0.05, 0.01)
STARTS: dict[str, Arm] = {
    "robust": {
        **EXAMPLES,
        "pruner": "dense",
        "budget": "uniform",
        "epsilon": RADIUS,
        "loss": "madry",
        "label_smoothing": 0.0,
        "steps": 2000,
    },
    "blind": {**BAP, **EXAMPLES, "pruner": "dense", "steps": 2000},
}
STARTS = {name: with_optimiser(start, BASE, SGD) | {"rate_schedule": "cosine"} for name, start in STARTS.items()}
_FIELD = field_methods(RADIUS, EXAMPLES)
METHODS: dict[str, Arm] = _FIELD | {
    "pwoa": with_looks({"method": "pwoa-cifar10", "init_from": "starts/robust"}, 6),
    "radmm": with_looks(_FIELD["radmm"], 10),
    "harp": {**_FIELD["harp"], "phases": {"prune": {"pruner.gamma": 0.1}}},
    "mad": {**_FIELD["mad"], "phases": {"finetune": {"pruner.batches": 50}}},
    "rst": {"method": "rst", **EXAMPLES, "budget.epsilon": RADIUS},
    "sensitive_filters": {"method": "sensitive_filters", "init_from": "starts/robust", **EXAMPLES, "budget.epsilon": RADIUS},
}


def _arm(name: str, arm: Arm) -> Arm:
    long = {} if "init_from" in arm else {"steps": LONG}
    return arm if name == "pwoa" else with_optimiser({**arm, **long}, BASE, SGD)


PLAN = AttackPlan(attack="pgd", norm="linf", epsilon="0,2/255,4/255,8/255", steps=20, limit=500)

SWEEP = Sweep(
    title="The field's methods on CIFAR-10, ResNet-8",
    base=BASE,
    arms=tuple(_arm(name, arm) for name, arm in METHODS.items()),
    starts=STARTS,
    sparsities=(0.95, 0.9, 0.99),
    processes=(Process(0.0, 0.5),),
    seeds=(0,),
    plans=(
        dataclasses.replace(PLAN, split="validation", limit=250),
        PLAN,
        dataclasses.replace(PLAN, attack="apgd-t", epsilon="0,8/255", steps=20, limit=200),
    ),
    notes=("1,000 steps of batch 128 after 2,000 shared ones, or 3,000: the networks are far from trained.",),
)
PARTS = (dataclasses.replace(SWEEP, sparsities=SWEEP.sparsities[:1]), SWEEP)

if __name__ == "__main__":
    from experiments.common import main_in_parts

    main_in_parts("methods_cifar10", PARTS, __doc__, least_clean=0.2)
