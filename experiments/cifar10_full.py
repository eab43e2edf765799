"""The paper's claims on CIFAR-10 with FitNet-4 and ResNet-18. For an accelerator; not run so far.

Command: ``python -m experiments.cifar10_full --data-dir DIR --publish``, or ``bap sweep experiments/cifar10_full.py --out DIR
--data-dir DIR``.
"""

from __future__ import annotations

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep
from experiments.arms import PAPER
from experiments.digits_protocol import BUDGETS

EPSILONS = "0,2/255,4/255,8/255,12/255,16/255"

SWEEP = Sweep(
    title="The claims of the paper on CIFAR-10",
    base=Settings(data="cifar10", epochs=70, batch_size=128, augment=True, validations=2),
    models=("fitnet4", "resnet18"),
    arms=PAPER,
    epsilons=("4/255", "8/255", "16/255"),
    sparsities=(0.5, 0.8, 0.9, 0.95, 0.99),
    processes=(Process(0.0, 20 / 70, 100), Process(0.0, 30 / 70, 100), Process(0.0, 60 / 70, 100)),
    seeds=range(3),
    plans=(
        AttackPlan(attack="pgd", norm="linf", epsilon=EPSILONS, split="validation"),
        AttackPlan(attack="pgd", norm="linf", epsilon=EPSILONS),
        AttackPlan(attack="autoattack", norm="linf", epsilon="8/255", limit=1000),
        AttackPlan(attack="deepfool-truncated,fgsm-truncated", norm="rms,linf", epsilon=BUDGETS),
    ),
)

if __name__ == "__main__":
    from experiments.common import main

    main("cifar10_full", SWEEP, __doc__, least_clean=0.0)
