"""Real MNIST, LeNet-5, 90 % sparse, 800 steps from scratch: clean, uniform 0.1 and 0.3, and blind with the settings of digits.

Command: ``python -m experiments.mnist_lenet5 --data-dir DIR --seeds 1`` (DIR holds prepared TFDS data sets).
"""

from __future__ import annotations

from bap_jax.cli.grid import expand
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.settings import Settings
from experiments.common import arguments, run

BASE = Settings(
    data="mnist", model="lenet5", steps=800, batch_size=128, attack_steps=5, validations=2, validation_limit=250, log_every=10
)
ARMS = (
    {"budget": "none"},
    {"budget": "uniform", "epsilon": "0.1"},
    {"budget": "uniform", "epsilon": "0.3"},
    {"budget": "cutoff-scale"},
)
PLANS = (
    AttackPlan(epsilon="0"),  # clean accuracy on all test images
    AttackPlan(attack="pgd", norm="linf", epsilon="0.1,0.2,0.3", steps=40, step_size="0.1", limit=1000),
)

if __name__ == "__main__":
    given = arguments(__doc__)
    cells = expand(BASE, ARMS, sparsities=(0.9,), ramp_ends=(0.6,), seeds=range(given.seeds))
    run("mnist_lenet5", "Blind adversarial pruning on MNIST", given, cells, PLANS)
