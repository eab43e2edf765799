"""The field's methods beside adversarial and blind pruning on digits: one network, one evaluation, equal passes.

Command: ``python -m experiments.methods_digits --together loop --publish``, or ``bap sweep experiments/methods_digits.py --out
DIR --together loop``. The same command goes on where it was stopped; the first one does all arms once, then the rest.

MLP 256-128, every kernel prunable by every method, 80, 90 and 97 % sparse. Beside it ResNet-8 for what needs BatchNorm or
filters: RST and the structured ratio, and adversarial pruning to compare with, each with a third of the passes. Training makes
its examples by PGD-7, at ε 0.3 where a method has to be told a radius, and adversarial pruning at 0.2 as well. PGD-20 and APGD-T.

Equal passes: an arm may make ``TOTAL`` forward passes for each training image, a backward pass counting as two
(:func:`bap_jax.runs.cost.mean_passes` times epochs): those of 60 epochs of adversarial pruning. Methods that begin with a trained
network begin with one of two that the arms of a seed share, ``robust`` (adversarial training at 0.3) and ``blind``; its passes
count for each of them, and so do those by which MAD finds its masks. :func:`spent` does the sum.

Nothing is tuned on test data. Each method has three trials (``TRIALS``: Adam at 3e-3 with its own loss, the same with half clean
and half adversarial images as ``ap`` has it, and all as it was published), judged by validation data at 90 %, seed 0:
``python -m experiments.methods_digits_trials --together loop --publish`` comes first, and :func:`chosen` reads its CSV.
HYDRA, HARP and S2AP are trained at their published proportions (100 : 20 : 100 epochs), the others at whatever passes leave.

Run time: 144 cells and nine networks to begin with. Training a cell took 12 (``ap``, ``bap``, ``robust_bird``), 16 to 21
(``li20``, ``harp``, ``twin_rep``, ``radmm``, ``mad``, ``flying_bird``) or 23 to 27 seconds (``hydra``, ``s2ap``, ``bap hydra``)
on one core that was shared, in the best of three trials each; with what evaluation takes, an hour and a half in all is to be
expected. The process keeps compiled programs, 100 to 200 MB a cell: where memory is short, stop it now and then and give the
command again.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from bap_jax.runs.cost import mean_passes
from bap_jax.runs.naming import arm_of, short_names
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.demo import PLAN
from bap_jax.sweeps.demo import SWEEP as DEMO
from bap_jax.sweeps.grid import Process
from experiments.arms import BAP, Arm, Optimiser, field_methods, with_cycles, with_optimiser
from experiments.published import Row, cells_in, published_rows

BASE = DEMO.base
TOTAL = 1620.0  # passes for each training image
RADIUS = 0.3
EXAMPLES: Arm = {"attack.num_steps": 7, "attack.step_size": 2.5 / 7}
TOLD: Arm = {**EXAMPLES, "budget.epsilon": RADIUS}
STARTS: dict[str, Arm] = {
    "robust": {
        "pruner": "dense",
        "budget": "uniform",
        "budget.epsilon": RADIUS,
        "learning_rate": 3e-3,
        "epochs": 26,
    },
    "blind": {**BAP, "pruner": "dense", "learning_rate": 3e-3, "epochs": 19},
}
STARTS["robust8"] = STARTS["robust"] | {"epochs": 8}

ADAM: Optimiser = ("adam", 3e-3, 3e-3)
TRIALS: tuple[tuple[Optimiser | None, Arm], ...] = ((ADAM, {}), (ADAM, {"loss": "mix"}), (None, {}))  # None: as the method has it
_AP: Arm = {"method": "ap", "budget.epsilon": RADIUS}
METHODS: dict[str, Arm] = field_methods(RADIUS, EXAMPLES) | {"ap 0.3": _AP, "bap": BAP, "ap 0.2": {**_AP, "budget.epsilon": 0.2}}

SMALLER = 3  # ResNet-8 is given a third of the passes
ON_RESNET8: dict[str, Arm] = {
    "ap 0.3": {**_AP, "final_sparsity": 0.9},
    "rst": {"method": "rst", **TOLD, "final_sparsity": 0.9},
    "sensitive_filters": {"method": "sensitive_filters", "init_from": "starts/robust8", **TOLD, "final_sparsity": 0.5},
}


def spent(settings: Settings) -> float:
    """The passes for each training image that a run makes, with those of the network that it begins with and of its scores."""

    def of(one: Settings) -> float:
        made = mean_passes(one)
        assert made is not None, "every arm's passes are counted"
        return one.epochs * sum(made.values())

    total = of(settings)
    if settings.init_from is not None:
        total += of(BASE.changed(**STARTS[settings.init_from.rpartition("/")[2]]))
    for _, own in settings.in_phases():
        if own.pruner == "mad":  # an epoch: examples, the mask's steps, a gradient of each example
            total += own.attack_options.gradients * 3 + own.pruner_options.mask_steps * 3 + 3
    return total


def as_long_as(arm: Arm, total: float) -> Arm:
    """An arm with the most epochs that a number of passes allows."""
    some, more = (spent(BASE.changed(**arm, epochs=epochs)) for epochs in (200, 400))
    near = int((total - some) / (more - some) * 200 + 200) - 5
    epochs = next(epochs for epochs in itertools.count(near) if spent(BASE.changed(**arm, epochs=epochs + 1)) > total)
    return with_cycles({**arm, "epochs": epochs}, BASE)


def tried(name: str) -> list[Arm]:
    """A method's trials, each as long as its passes allow."""
    own = METHODS[name]
    settled = own["method"] in ("ap", "bap", "pwoa") or "loss" in own  # that loss already, or losses of its phases' own
    more = [{} if settled else change for _, change in TRIALS]
    arms = [{**with_optimiser(own, BASE, kind), **change} for (kind, _), change in zip(TRIALS, more, strict=True)]
    return [as_long_as(arm, TOTAL) for arm in arms]


TRIED: dict[str, list[Arm]] = {name: tried(name) for name in METHODS}


def scores(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Method -> the AER score of each of its trials, NaN where there is none.

    Args:
      rows: of evaluations on validation data, arms called as shortly as those of all trials can be told apart.
    """
    short = short_names(arm_of(BASE.changed(**arm)) for arms in TRIED.values() for arm in arms)
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["arm"], []).append(row["accuracy"])
    names = {name: [short[arm_of(BASE.changed(**arm))] for arm in arms] for name, arms in TRIED.items()}
    return {name: [float(np.mean(found.get(arm, [np.nan]))) for arm in arms] for name, arms in names.items()}


def chosen(rows: Sequence[Row]) -> dict[str, int]:
    """Method -> the best of its trials, the earlier of equals; the first where none was made."""
    return {name: int(np.argmax(np.nan_to_num(of_trials, nan=-1.0))) for name, of_trials in scores(rows).items()}


def published_trials() -> list[Row]:
    """The rows of ``methods_digits_trials.csv``; none before it is published."""
    return published_rows("methods_digits_trials", "validation") if cells_in("methods_digits_trials") else []


CHOSEN = chosen(published_trials())
ARMS: tuple[Arm, ...] = (
    *(TRIED[name][number] for name, number in CHOSEN.items()),
    *({"model": "resnet8", **as_long_as(arm, TOTAL / SMALLER)} for arm in ON_RESNET8.values()),
)
PLANS = (
    dataclasses.replace(PLAN, split="validation"),
    PLAN,
    dataclasses.replace(PLAN, attack="apgd-t", epsilon="0,0.1,0.2,0.3", steps=20, limit=200),
)

SWEEP = dataclasses.replace(
    DEMO,
    title="The field's methods on digits, at equal passes",
    arms=ARMS,
    starts=STARTS,
    epsilons=(),
    sparsities=(0.9, 0.97, 0.8),
    processes=(Process(0.0, 0.6),),
    seeds=range(3),
    plans=PLANS,
)

PARTS = (  # what is done first: all arms once, then all sparsities, then all seeds
    dataclasses.replace(SWEEP, sparsities=SWEEP.sparsities[:1], seeds=(0,)),
    dataclasses.replace(SWEEP, seeds=(0,)),
    SWEEP,
)

if __name__ == "__main__":
    from experiments.common import main_in_parts

    main_in_parts("methods_digits", PARTS, __doc__, least_clean=0.3)
