"""From settings to the pieces of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bap_jax.data import augment
from bap_jax.errors import SettingError
from bap_jax.mathematics.convolution import ConvKind, conv_kind
from bap_jax.models import build as build_model
from bap_jax.parallel import jit_step
from bap_jax.pruners import quantized
from bap_jax.runs.factories import filled
from bap_jax.runs.network_options import keywords_of
from bap_jax.runs.optimizer import shaped
from bap_jax.runs.options import Options
from bap_jax.runs.settings import FLOAT_BITS, Settings
from bap_jax.training import TrainState, make_train_step
from bap_jax.types import Array, Batch, Bounds, Model, ModelState, Params, Recipe, RunInfo

AUGMENT_STREAM = 2**31 - 1  # folded into the run's key, a number that no step has


def model_of(settings: Settings, num_classes: int) -> Model:
    """The network of the settings: one and the same object for the same network, so that compiled functions are found again."""
    return _cached_model(settings.model, settings.model_options, num_classes, conv_kind())


@functools.lru_cache
def _cached_model(name: str, options: Options, num_classes: int, conv: ConvKind) -> Model:
    model = _built(name, options, num_classes, conv=conv)
    return model._replace(init=jax.jit(model.init))


def network_of(settings: Settings, num_classes: int, **more: Any) -> Model:
    """The network of the settings, built anew.

    Args:
      settings: the network and its options.
      num_classes: K.
      **more: of :func:`bap_jax.models.build`, such as ``conv="plain"``.
    """
    return _built(settings.model, settings.model_options, num_classes, **more)


def _built(name: str, options: Options, num_classes: int, **more: Any) -> Model:
    """The network; what its initialisation refuses of an option has the option's name on the command line."""
    model = build_model(name, num_classes=num_classes, **keywords_of(options) | more)

    def init(*arguments: Any) -> tuple[Params, ModelState]:
        try:
            return model.init(*arguments)
        except SettingError as error:
            option = error.name.partition("[")[0]
            if option not in options.values():
                raise
            raise SettingError(f"--model.{option.replace('_', '-')}", error.value, error.expected) from error

    return model._replace(init=init)


def recipe_of(settings: Settings, info: RunInfo) -> Recipe:
    """Optimiser, pruner, budget and loss, as the settings fill them.

    A ``package.module:factory`` is called as ``factory(info, **options)`` and returns the slot. One that takes ``(settings, ramp,
    bounds)``, as factories did at first, is called so, with the ramp in steps and the bounds of the images, and warned of.

    Raises:
      SettingError: a factory of the user's own does not return what the slot takes.
    """
    optimizer = shaped(settings, info.num_steps or None, filled("optimizer", settings, info))
    pruner, budget, loss = (filled(slot, settings, info) for slot in ("pruner", "budget", "loss"))
    if settings.weight_bits != FLOAT_BITS:
        pruner = quantized(pruner, bits=settings.weight_bits)
    return Recipe(optimizer, pruner, budget, loss)


def compiled_step(settings: Settings, recipe: Recipe, num_classes: int, bounds: Bounds, mesh, shard: bool = False) -> Callable:
    """The jitted train step; runs that differ only in what the state carries share one, and one compile.

    A run with the user's own slots shares none: a factory may build any setting into its slot. Nor does one whose pruner is
    built for its length.
    """
    if not settings.shares_step():
        return jit_step(step_of(settings, recipe, num_classes), mesh, shard=shard)
    return _cached_step(settings.traced(), num_classes, bounds, mesh, shard, conv_kind())


@functools.lru_cache(maxsize=64)
def _cached_step(settings: Settings, num_classes: int, bounds: Bounds, mesh, shard: bool, conv: ConvKind) -> Callable:
    return jit_step(step_of(settings, traced_recipe(settings, num_classes, bounds), num_classes), mesh, shard=shard)


def traced_recipe(settings: Settings, num_classes: int, bounds: Bounds) -> Recipe:
    """The slots that a compiled step is made of, by :meth:`Settings.traced` settings: what differs comes with the state."""
    apply = model_of(settings, num_classes).apply
    # the step sees nothing of sizes: images and tables come with the batch and the state
    info = RunInfo(apply, num_classes, bounds, image_shape=(), num_examples=0, steps_per_epoch=0, num_steps=2)
    return recipe_of(settings, info)


def step_of(settings: Settings, recipe: Recipe, num_classes: int) -> Callable:
    """The train step before it is jitted, on augmented images where the settings say so."""
    chunks: dict[str, Any] = {"microbatches": settings.microbatches, "attack_chunks": settings.attack_chunks}
    step = make_train_step(model_of(settings, num_classes).apply, *recipe, **chunks)
    return augmented(step) if settings.augment else step


def augmented(step: Callable) -> Callable:
    """The step on shifted and flipped images, the randomness being a function of the run's key, the step and the row."""

    def wrapped(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.fold_in(state.key, AUGMENT_STREAM), state.step)
        rows: Array = jnp.arange(batch.labels.shape[0])
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
        return step(state, batch._replace(images=augment(keys, batch.images)))

    return wrapped
