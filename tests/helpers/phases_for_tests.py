"""A run of three phases, as short as phases can be, or many times as long."""

import functools

import optax
from plugins_for_tests import blobs, small

import bap_jax as bap
from bap_jax.runs import Fitted, TrainingOptions, fit
from bap_jax.types import Length, Phase, Recipe

OPTIONS = TrainingOptions(
    batch_size=8, log_every=1, validations=3, validation_steps=1, validation_epsilons=(0.0, 0.1), keep=1, save_seconds=0.0
)
MODEL = small(3)


def slots(pruner, *, adversarial=False, rate=0.1) -> Recipe:
    attack = functools.partial(bap.pgd, norm="linf", num_steps=1)
    budget = bap.budgets.uniform(attack, 0.1) if adversarial else bap.budgets.none()
    return Recipe(optax.adam(rate), pruner, budget, bap.losses.mix() if adversarial else bap.losses.clean())


def phases(times: int = 1) -> tuple[Phase, ...]:
    """Pretraining of 6 steps, pruning to one half of 7 and fine-tuning of 3, each so many times; an epoch is 3 steps."""
    ramp = bap.Ramp(0.0, 0.5, 0, 3 * times, 2)
    return (
        Phase("pretrain", slots(bap.pruners.dense()), Length(epochs=2 * times)),
        Phase("prune", slots(bap.pruners.magnitude(ramp), adversarial=True), Length(steps=7 * times), weights="best"),
        Phase("finetune", slots(bap.pruners.dense(), rate=0.01), Length(epochs=times)),
    )


PHASES = phases()


def trained(phases=PHASES, **more) -> Fitted:
    return fit(MODEL, phases, blobs(), options=OPTIONS, **more)
