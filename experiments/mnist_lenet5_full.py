"""The paper's own grid on MNIST: LeNet-5, all arms, all final sparsities, 70 epochs. For an accelerator; not run so far.

Command: ``python -m experiments.mnist_lenet5_full --data-dir DIR --publish``, or ``bap sweep experiments/mnist_lenet5_full.py
--out DIR --data-dir DIR``.
"""

from __future__ import annotations

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep
from experiments.arms import PAPER
from experiments.digits_protocol import BUDGETS

EPSILONS = "0,0.05,0.1,0.15,0.2,0.25,0.3,0.4"
SPARSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.91, 0.93, 0.95, 0.97, 0.99, 0.995, 0.999)

SWEEP = Sweep(
    title="The claims of the paper on MNIST, the whole grid",
    base=Settings(data="mnist", model="lenet5", epochs=70, batch_size=128, validations=2),
    arms=PAPER,
    epsilons=("0.1", "0.2", "0.3"),
    sparsities=SPARSITIES,
    processes=(Process(0.0, 20 / 70, 100), Process(0.0, 30 / 70, 100), Process(0.0, 60 / 70, 100)),
    seeds=range(3),
    plans=(
        AttackPlan(attack="pgd", norm="linf", epsilon=EPSILONS, steps=40, split="validation"),
        AttackPlan(attack="pgd", norm="linf", epsilon=EPSILONS, steps=40),
        AttackPlan(attack="autoattack", norm="linf", epsilon="0.1,0.2,0.3", limit=1000),
        AttackPlan(attack="deepfool-truncated,fgsm-truncated", norm="rms,linf", epsilon=BUDGETS),
    ),
)

if __name__ == "__main__":
    from experiments.common import main

    main("mnist_lenet5_full", SWEEP, __doc__, least_clean=0.0)  # a network of 0.1 % of its weights may learn nothing
