"""Real MNIST, LeNet-5, 90 % sparse, 800 steps from scratch: clean, uniform 0.1 and 0.3, and blind with the settings of digits.

Command: ``python -m experiments.mnist_lenet5 --data-dir DIR --seeds 1``, or the same with ``bap sweep experiments/mnist_lenet5.py
--out DIR`` (the data's DIR holds prepared TFDS data sets).
"""

from __future__ import annotations

from bap_jax.cli.grid import Process, Sweep
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.settings import Settings

SWEEP = Sweep(
    title="Blind adversarial pruning on MNIST",
    base=Settings(
        data="mnist", model="lenet5", steps=800, batch_size=128, attack_steps=5, validations=2, validation_limit=250, log_every=10
    ),
    arms=({"budget": "none"}, {"budget": "uniform"}, {"budget": "cutoff-scale"}),
    epsilons=("0.1", "0.3"),
    sparsities=(0.9,),
    processes=(Process(0.0, 0.6),),
    seeds=range(3),
    plans=(
        AttackPlan(epsilon="0"),  # clean accuracy on all test images
        AttackPlan(attack="pgd", norm="linf", epsilon="0.1,0.2,0.3", steps=40, step_size="0.1", limit=1000),
    ),
)

if __name__ == "__main__":
    from experiments.common import main

    main("mnist_lenet5", SWEEP, __doc__)
