"""The blind budget on digits: path × halving × wrong examples × whose mean, and the scale, beside uniform budgets.

Command: ``python -m experiments.blind_digits --publish``, or ``bap sweep experiments/blind_digits.py --out DIR``. With
``blind_mnist.py`` and ``blind_cifar10.py`` it is what ``choice.py`` chooses the blind setting on, by validation data; the rule
stands there.

The arms are the candidates of all three data sets, and on digits, where a cell takes seconds, every combination of path, halving,
wrong examples and mean at the scale of 1.2. 80 % and 97 % sparse, two ramps, three seeds.

Run time: 408 cells, about half an hour on one free core (4.4 s a cell); 46 minutes on one that was shared.
"""

from __future__ import annotations

import dataclasses
import itertools

from bap_jax.sweeps.demo import FAST, SLOW
from experiments.arms import CANDIDATES, NT_PRUNE, PARTS, Arm
from experiments.digits_aer import SWEEP as DIGITS

FACTORS = {
    "path": ("ball", "ray"),
    "halving": ("log", "linear"),
    "wrong": ("cutoff", "zero", "floor:0.5"),
    "cutoff_over": ("all", "right"),
}
EVERY: tuple[Arm, ...] = tuple(
    CANDIDATES[0] | dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())
)
UNIFORM: tuple[Arm, ...] = tuple({"budget": "uniform", "epsilon": epsilon} for epsilon in ("0.3", "0.2", "0.1", "0.4"))

SWEEP = dataclasses.replace(
    DIGITS,
    title="The blind budget on digits",
    arms=(*UNIFORM, *CANDIDATES, *PARTS, *EVERY, NT_PRUNE),
    epsilons=(),
    sparsities=(0.8, 0.97),
    processes=(FAST, SLOW),
    seeds=range(3),
)

if __name__ == "__main__":
    from experiments.common import main

    main("blind_digits", SWEEP, __doc__)
