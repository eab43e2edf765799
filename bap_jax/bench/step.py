"""What `bap bench` times: compiled train steps on resident batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax import data as data_layer
from bap_jax.data import Source, train_batches
from bap_jax.errors import SettingError
from bap_jax.parallel import jit_step, replicate, shard_batch
from bap_jax.runs.info import run_info
from bap_jax.runs.recipe import network_of, recipe_of
from bap_jax.runs.settings import Settings
from bap_jax.timing import Sample, Timed, calls_for, sample
from bap_jax.training import TrainState, init_state, make_train_step
from bap_jax.types import Array, Batch, Model, Pruner

BATCHES = 8
SAMPLE_SECONDS = 0.2
MASK_REPEATS = 16
RAMP_STEPS = 1000  # the run that the timed steps are the beginning of: by default masks then change every 30 steps


def read_data(settings: Settings) -> Source:
    """Enough training data for the batches that are timed."""
    return data_layer.load_split(settings.data, "train", data_dir=settings.data_dir, limit=BATCHES * settings.batch_size)


def check_batch(settings: Settings, source: Source) -> None:
    """Refuses a batch larger than the training data.

    Raises:
      SettingError: it is.
    """
    if len(source) < settings.batch_size:
        raise SettingError("--batch-size", settings.batch_size, f"at most {len(source)}, the training examples there are")


def first_batch(settings: Settings, source: Source) -> Batch:
    """The first batch of training, on the device.

    Raises:
      SettingError: it is larger than the training data.
    """
    check_batch(settings, source)
    return _resident(next(iter(_batches(settings, source))), None)


def jitted_init(model: Model) -> Model:
    """The model with its initialisation in one compile."""
    return model._replace(init=jax.jit(model.init))


def network(settings: Settings, source: Source, **options: Any) -> Model:
    """The network; ``options`` such as ``conv="plain"`` are those of :func:`bap_jax.models.build`."""
    return jitted_init(network_of(settings, source.num_classes, **options))


class TimedStep:
    """A compiled train step that goes on from its own last state whenever it is timed."""

    def __init__(self, settings: Settings, source: Source, model: Model, num_steps: int, mesh=None):
        info = run_info(model, source, num_steps=num_steps, batch_size=settings.batch_size)
        self.recipe = recipe_of(settings, info)
        images = jnp.zeros((1, *info.image_shape), jnp.float32)
        self.state = init_state(model, *self.recipe, key=jax.random.key(settings.seed), images=images, info=info)
        self.batches = [_resident(batch, mesh) for batch in _batches(settings, source)]
        if mesh is not None:
            self.state = replicate(mesh, self.state)
        step: Any = jit_step(make_train_step(model.apply, *self.recipe), mesh)
        began = time.perf_counter()
        self._step = step.lower(self.state, self.batches[0]).compile()
        self.compile_seconds = time.perf_counter() - began
        self._count = 0
        self.go()
        self.calls = calls_for(sample(self.go).wall, at_least=SAMPLE_SECONDS)

    def go(self, steps: int = 1) -> None:
        """Takes steps and waits for them."""
        metrics = None
        for _ in range(steps):
            self.state, metrics = self._step(self.state, self.batches[self._count % len(self.batches)])
            self._count += 1
        jax.block_until_ready(metrics)

    def time(self) -> Sample:
        """Seconds per step."""
        taken = sample(lambda: self.go(self.calls))
        return Sample(taken.wall / self.calls, taken.processor / self.calls)


def _batches(settings: Settings, source: Source) -> list[Batch]:
    return list(train_batches(source, seed=settings.seed, batch_size=settings.batch_size, stop_step=BATCHES))


def _resident(batch: Batch, mesh) -> Batch:
    own = jax.tree.map(np.array, batch)
    return jax.device_put(own) if mesh is None else shard_batch(mesh, own)


def has_convolutions(step: TimedStep) -> bool:
    """Whether some weight is a kernel [h, w, C, F]."""
    return any(leaf.ndim == 4 for leaf in jax.tree.leaves(step.state.trainable))


def mask_work(pruner: Pruner, state: TrainState) -> Callable[[int], Timed]:
    """What pruning adds to the step of a number: masked weights, the schedule, the masks if due, pruned weights to 0.

    It is timed on its own, within a whole step it drowns in the noise; and repeated inside one program, so that starting the
    program, which a step does anyway, hardly counts.
    """

    def once(number: Array, trainable, prune):
        effective = pruner.effective(trainable, prune)
        trainable, prune = jax.lax.cond(
            pruner.due(number, prune),
            lambda: pruner.update(state.key, number, effective, effective, prune),
            lambda: (effective, prune),
        )
        return pruner.project(trainable, prune), prune

    @jax.jit
    def repeated(number: Array, trainable, prune):
        return jax.lax.fori_loop(0, MASK_REPEATS, lambda _, held: once(number, *held), (trainable, prune))

    held = jax.tree.map(jnp.copy, (state.trainable, state.prune))  # a step gives its state's memory away

    def at(step: int) -> Timed:
        call = lambda: jax.block_until_ready(repeated(jnp.int32(step), *held))  # noqa: E731
        call()
        calls = calls_for(sample(call).wall, at_least=SAMPLE_SECONDS / 4)
        return lambda: Sample(*(seconds / MASK_REPEATS for seconds in sample(call, calls)))

    return at
