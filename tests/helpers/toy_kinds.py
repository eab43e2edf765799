"""A toy of every kind that the command line names: its options and what makes it, all that a new one writes besides its row."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

import bap_jax as bap
from bap_jax.runs.factories import filled
from bap_jax.runs.options import Options
from bap_jax.types import Adversarial, AttackResult, Budget, Loss


@dataclasses.dataclass(frozen=True)
class Toy(Options):
    """A toy."""

    strength: float = 0.5
    """How much of it."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("strength",)


@dataclasses.dataclass(frozen=True)
class ToyBudget(Toy):
    """A toy."""

    SLOT: ClassVar[str] = "budget"


@dataclasses.dataclass(frozen=True)
class ToyAttack(Toy):
    """A toy."""

    SLOT: ClassVar[str] = "attack"


@dataclasses.dataclass(frozen=True)
class ToyPruner(Toy):
    """A toy."""

    SLOT: ClassVar[str] = "pruner"


@dataclasses.dataclass(frozen=True)
class ToyOptimizer(Toy):
    """A toy."""

    SLOT: ClassVar[str] = "optimizer"


@dataclasses.dataclass(frozen=True)
class ToyLoss(Toy):
    """A toy."""

    SLOT: ClassVar[str] = "loss"


OPTIONS = {kind.SLOT: kind for kind in (ToyBudget, ToyAttack, ToyPruner, ToyOptimizer, ToyLoss)}
called: dict[str, set[float]] = {slot: set() for slot in OPTIONS}  # the strengths that each was made with


def budget(settings, info, own):
    """A radius that stands in the state, so that a sweep may vary it."""
    called["budget"].add(own.strength)
    attack = filled("attack", settings, info)

    def perturb(keys, logits_fn, batch, state, *, step, gather):
        epsilon = jnp.full(batch.labels.shape, state)
        images = attack(logits_fn, keys, batch.images, batch.labels, epsilon=epsilon).images
        return Adversarial(images, epsilon, jax.nn.one_hot(batch.labels, info.num_classes), batch.weight), state

    return Budget(lambda info: jnp.float32(own.strength), perturb)


def attack(settings, info, own, **hints):
    called["attack"].add(own.strength)

    def away(logits_fn, keys, images, labels, *, epsilon):
        moved = images + own.strength * epsilon.reshape(-1, *[1] * (images.ndim - 1)) * jnp.sign(images - 0.5)
        images = jnp.clip(moved, info.bounds.lower, info.bounds.upper)
        return AttackResult(images, jnp.argmax(logits_fn(images), -1) != labels, jnp.zeros((1, len(labels))))

    return away


def pruner(settings, info, own):
    called["pruner"].add(own.strength)
    return bap.pruners.magnitude(bap.Ramp(0.0, own.strength, 0, 1, 1))


def optimizer(settings, info, own):
    called["optimizer"].add(own.strength)
    return optax.sgd(own.strength)


def loss(settings, info, own):
    called["loss"].add(own.strength)

    def value(forward, batch, adversarial, state, *, step, mean, gather):
        (outputs,) = forward(adversarial.images)
        return own.strength * mean(optax.softmax_cross_entropy(outputs.logits, adversarial.targets), batch.weight), {}

    return Loss(lambda params, model_state, info: (), value)


def broken_budget(info):
    """Its radius is one for all, where the contract asks for one per example."""
    attack = functools.partial(bap.pgd, norm="linf", num_steps=1, bounds=info.bounds)
    made = bap.budgets.uniform(attack, 0.1)

    def perturb(*arguments, **more):
        adversarial, state = made.perturb(*arguments, **more)
        return adversarial._replace(epsilon=adversarial.epsilon[0]), state

    return made._replace(perturb=perturb)
