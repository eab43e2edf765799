"""From settings to the pieces of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from bap_jax import budgets, pruners
from bap_jax.attacks import fgsm, pgd
from bap_jax.budgets import BudgetAttack, parse_cutoff
from bap_jax.cli.settings import Settings, schedule_of
from bap_jax.data import augment
from bap_jax.errors import SettingError
from bap_jax.mathematics.schedules import Ramp
from bap_jax.models import build as build_model
from bap_jax.parallel import jit_step
from bap_jax.plugins import import_object, is_import_path
from bap_jax.training import TrainState, init_state, losses, make_train_step
from bap_jax.types import Array, Batch, Bounds, Budget, Loss, Model, Pruner

T = TypeVar("T")
AUGMENT_STREAM = 2**31 - 1  # folded into the run's key, a number that no step has


class Slots(NamedTuple):
    """What fills the one train step."""

    optimizer: optax.GradientTransformation
    pruner: Pruner
    budget: Budget
    loss: Loss


def model_of(name: str, num_classes: int) -> Model:
    """The model of that name (one and the same object for the same arguments, so that compiled functions are found again)."""
    return _cached_model(name, num_classes)


@functools.lru_cache
def _cached_model(name: str, num_classes: int) -> Model:
    model = build_model(name, num_classes=num_classes)
    return model._replace(init=jax.jit(model.init))


def slots_of(settings: Settings, ramp: Ramp, bounds: Bounds) -> Slots:
    """Optimiser, pruner, budget and loss. A ``package.module:factory`` is called as ``factory(settings, ramp, bounds)``, with the
    ramp in steps and the bounds of the images, and returns the slot."""
    given = settings, ramp, bounds
    return Slots(_optimizer(settings), _pruner(*given), _budget(*given), _loss(*given))


def _own(slot: str, settings: Settings, ramp: Ramp, bounds: Bounds, kind: type[T]) -> T:
    """What the user's own factory makes for a slot."""
    path = getattr(settings, slot)
    made = import_object(f"--{slot}", path)(settings, ramp, bounds)
    if not isinstance(made, kind):
        raise SettingError(f"--{slot}", path, f"a factory that returns a {kind.__name__}, not a {type(made).__name__}")
    return made


def _optimizer(settings: Settings) -> optax.GradientTransformation:
    """Adam or SGD with the learning rate as a leaf of its state, so that runs at different rates share a compile."""
    decay = [optax.add_decayed_weights(settings.weight_decay)] if settings.weight_decay else []

    def at(learning_rate: Array) -> optax.GradientTransformation:
        if settings.optimizer == "sgd":
            return optax.chain(*decay, optax.sgd(learning_rate, momentum=0.9))
        return optax.chain(*decay, optax.adam(learning_rate))

    return optax.inject_hyperparams(at)(learning_rate=settings.learning_rate)


def _pruner(settings: Settings, ramp: Ramp, bounds: Bounds) -> Pruner:
    if is_import_path(settings.pruner):
        return _own("pruner", settings, ramp, bounds, Pruner)
    if settings.pruner == "dense":
        return pruners.dense()
    return pruners.magnitude(
        ramp, schedule=schedule_of(settings.schedule), scope=settings.scope, distribution=settings.distribution
    )


def _attack(settings: Settings, ramp: Ramp, bounds: Bounds) -> BudgetAttack:
    if is_import_path(settings.attack):
        return _own("attack", settings, ramp, bounds, Callable)  # type: ignore[arg-type]
    if settings.attack == "fgsm":

        def one_step(logits_fn, keys, images, labels, *, epsilon):
            return fgsm(logits_fn, keys, images, labels, epsilon=epsilon, norm=settings.norm, bounds=bounds)

        return one_step

    def several_steps(logits_fn, keys, images, labels, *, epsilon):
        step_size = None if settings.step_size is None else settings.step_size * epsilon
        return pgd(
            logits_fn,
            keys,
            images,
            labels,
            epsilon=epsilon,
            num_steps=settings.attack_steps,
            norm=settings.norm,
            step_size=step_size,
            bounds=bounds,
        )

    return several_steps


def _budget(settings: Settings, ramp: Ramp, bounds: Bounds) -> Budget:
    if is_import_path(settings.budget):
        return _own("budget", settings, ramp, bounds, Budget)
    if settings.budget == "none":
        return budgets.none()
    attack = _attack(settings, ramp, bounds)
    if settings.budget == "uniform":
        return budgets.uniform(attack, settings.radius())
    if settings.search == "deepfool":
        search = budgets.deepfool_search(num_steps=settings.search_steps or 5, bounds=bounds)
    else:
        search = budgets.pgd_search(
            norm=settings.norm, num_steps=settings.search_steps or 1, num_bisections=settings.num_bisections, bounds=bounds
        )
    return budgets.cutoff_scale(
        search,
        attack if settings.example == "fresh" else None,
        cutoff=parse_cutoff(settings.cutoff),
        scale=settings.scale,
        norm=settings.norm,
        epsilon_max=settings.epsilon_max,
        bounds=bounds,
    )


def _loss(settings: Settings, ramp: Ramp, bounds: Bounds) -> Loss:
    if is_import_path(settings.loss):
        return _own("loss", settings, ramp, bounds, Loss)
    if settings.loss == "clean" or (settings.loss == "auto" and settings.budget == "none"):
        return losses.clean(label_smoothing=settings.label_smoothing)
    return losses.mix(adversarial_weight=settings.adversarial_weight, label_smoothing=settings.label_smoothing)


def initial_state(model: Model, slots: Slots, settings: Settings, image_shape: tuple[int, ...], num_examples: int) -> TrainState:
    """The state before the first step, on the default device."""
    return init_state(
        model,
        *slots,
        key=jax.random.key(settings.seed),
        images=jnp.zeros((1, *image_shape), jnp.float32),
        num_examples=num_examples,
    )


def compiled_step(settings: Settings, slots: Slots, num_classes: int, bounds: Bounds, mesh) -> Callable:
    """The jitted train step; runs that differ only in what the state carries share one, and one compile.

    A run with the user's own slots shares none: a factory may build any setting into its slot.
    """
    if settings.own_slots():
        return _compile(settings, slots, num_classes, mesh)
    return _cached_step(settings.traced(), num_classes, bounds, mesh)


@functools.lru_cache(maxsize=64)
def _cached_step(settings: Settings, num_classes: int, bounds: Bounds, mesh) -> Callable:
    return _compile(settings, slots_of(settings, settings.ramp(2), bounds), num_classes, mesh)


def _compile(settings: Settings, slots: Slots, num_classes: int, mesh) -> Callable:
    step = make_train_step(model_of(settings.model, num_classes).apply, *slots)
    return jit_step(augmented(step) if settings.augment else step, mesh)


def augmented(step: Callable) -> Callable:
    """The step on shifted and flipped images, the randomness being a function of the run's key, the step and the row."""

    def wrapped(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.fold_in(state.key, AUGMENT_STREAM), state.step)
        rows: Array = jnp.arange(batch.labels.shape[0])
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
        return step(state, batch._replace(images=augment(keys, batch.images)))

    return wrapped
