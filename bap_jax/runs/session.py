"""One process's part of a run: from the step it starts at to the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.checkpoint import (
    Checkpoints,
    SaveInterval,
)
from bap_jax.data import Splits, steps_per_epoch, train_batches
from bap_jax.errors import NonFiniteError, StorageError
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.parallel import shard_batch
from bap_jax.runs.recipe import compiled_step
from bap_jax.runs.settings import Settings
from bap_jax.runs.signals import Interrupted
from bap_jax.runs.validation import Validation, validate
from bap_jax.training import TrainState
from bap_jax.types import Model, Network, Recipe, RunInfo

Progress = Callable[[int, int, dict[str, float]], None]  # (steps done, steps in all, latest metrics)


class Trained(NamedTuple):
    """What a finished run is known by."""

    folder: Path
    steps: int
    sparsity: float
    validation: Validation
    best_step: int
    seconds: float
    resumed_from: int | None  # the step that a resumed run went on from
    changed_versions: dict[str, tuple[Any, Any]]  # what differs from the versions that a resumed run was started with


class Run(NamedTuple):
    """The fixed parts of a run."""

    settings: Settings
    splits: Splits
    model: Model
    info: RunInfo
    recipe: Recipe
    num_steps: int
    mesh: Any


class Session:
    """One process's part of a run: from the step it starts at to the end.

    Attributes:
      start: the step that it starts at.
      pending: (step, loss) not yet looked at, so that the device is not waited for.
    """

    def __init__(self, run: Run, folder, checkpoints: Checkpoints, writer, save_seconds: float, latest: int | None):
        self.run, self.folder, self.checkpoints, self.writer = run, folder, checkpoints, writer
        self.resumed_from, self.start, self.save_seconds = latest, latest or 0, save_seconds
        self.validate_every = max(1, math.ceil(run.num_steps / run.settings.validations))
        self.pending: list[tuple[int, Any]] = []
        self.last_validation: Validation | None = None
        self.began = time.monotonic()
        self.clock = (self.start, self.began)

    def interval(self) -> SaveInterval:
        """When to save: every epoch or every ``save_seconds``, whichever comes later."""
        per_epoch = steps_per_epoch(len(self.run.splits.train), self.run.settings.batch_size)
        return SaveInterval(per_epoch, self.save_seconds, start=self.start)

    def go(self, state: TrainState, stop: Callable[[], bool], progress: Progress | None) -> TrainState:
        run, total, interval = self.run, self.run.num_steps, self.interval()
        step_fn = compiled_step(run.settings, run.recipe, run.splits.train.num_classes, run.splits.train.bounds, run.mesh)
        batches = train_batches(
            run.splits.train,
            seed=run.settings.seed,
            batch_size=run.settings.batch_size,
            start_step=self.start,
            stop_step=total,
        )
        for done, batch in enumerate(batches, self.start + 1):
            state, metrics = step_fn(state, batch if run.mesh is None else shard_batch(run.mesh, batch))
            self.pending.append((done, metrics["loss"]))
            if self.logs(done):
                line = self.log(done, jax.device_get(metrics), measured_sparsity(state.prune.masks))
                if progress:
                    progress(done, total, line)
            stopping = stop()  # asked once: what is saved and what is said have to agree
            self.settle(done, state, saving=interval.due(done) or stopping)
            if stopping and done < total:
                raise Interrupted(f"stopped after step {done} of {total}; --resume goes on from there")
        return state

    def trained(self, state: TrainState) -> Trained:
        """What the run is known by, once everything is written."""
        validation = self.last_validation or validate(self.run, state)
        self.checkpoints.wait()
        best = self.checkpoints.best_step()
        sparsity = float(measured_sparsity(self.run.recipe.pruner.finish(state.trainable, state.prune)[1]))
        seconds, changed = time.monotonic() - self.began, self.folder.changed_versions
        step, folder = int(state.step), Path(self.folder.folder)
        return Trained(folder, step, sparsity, validation, best or 0, seconds, self.resumed_from, changed)

    def logs(self, step: int) -> bool:
        """Whether a step has its line in metrics.jsonl."""
        return step % self.run.settings.log_every == 0 or step == self.run.num_steps

    def log(self, step: int, metrics: dict[str, Any], sparsity: Any) -> dict[str, float]:
        self.check_losses()
        line = {name: float(value) for name, value in metrics.items()} | {"sparsity": float(sparsity)}
        then, now = self.clock, (step, time.monotonic())
        self.clock = now
        self.keep_line(step, **line, time_per_step=(now[1] - then[1]) / max(1, step - then[0]))
        self.write(step, line)
        return line

    def keep_line(self, step: int, **values: Any) -> None:
        """Writes a line of metrics.jsonl; a full disk stops the run."""
        try:
            self.folder.log(step, **values)
        except StorageError as error:
            self.checkpoints.wait()  # the one that is being written may fail, too
            raise StorageError(f"{error}; {self.kept()}") from error

    def settle(self, step: int, state: TrainState, *, saving: bool) -> None:
        """What a step leaves behind besides its line: a validation, a checkpoint."""
        validated = self.validate_at(step, state)
        if saving or step == self.run.num_steps or self.is_best(validated):
            self.save(step, state, validated)

    def write(self, step: int, values: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def check_losses(self) -> None:
        """Stops at the first loss that is not finite; nothing after the last good checkpoint is kept."""
        losses = jax.device_get([loss for _, loss in self.pending])
        for (step, _), loss in zip(self.pending, losses, strict=True):
            if not np.isfinite(loss):
                raise NonFiniteError(f"the loss of step {step} is {loss}; {self.last_good()}")
        self.pending.clear()

    def check_state(self, step: int, state: TrainState) -> None:
        """A loss is computed before the update: the update itself may still have left weights that are not finite."""
        if not bool(_all_finite((state.trainable, state.model_state))):
            raise NonFiniteError(f"step {step} left weights that are not finite; {self.last_good()}")

    def last_good(self) -> str:
        return f"{self.kept()}. A smaller --learning-rate may help"

    def kept(self) -> str:
        good = self.checkpoints.latest_step()
        return "there is no earlier checkpoint" if good is None else f"the checkpoint of step {good} is kept"

    def validates(self, step: int) -> bool:
        """Validation is at fixed steps, from the end of the ramp on: a best checkpoint has to have its final sparsity."""
        ramped = step > int(self.run.settings.ramp(self.run.num_steps).end_step) or self.run.settings.pruner == "dense"
        return step == self.run.num_steps or (step % self.validate_every == 0 and ramped)

    def validate_at(self, step: int, state: TrainState) -> Validation | None:
        if not self.validates(step):
            return None
        self.check_losses()
        validation = validate(self.run, state)
        self.last_validation = validation
        named = validation.as_dict()
        self.keep_line(step, **named)
        self.write(step, named)
        return validation

    def is_best(self, validation: Validation | None) -> bool:
        """Whether a validation is the best so far."""
        if validation is None:
            return False
        best = self.checkpoints.best_step()
        return best is None or validation.mean > self.checkpoints.metadata(best)["metric"]

    def save(self, step: int, state: TrainState, validation: Validation | None) -> None:
        """Saves a state that is known to be good.

        Only the best checkpoint so far and the last get a metric: one saved because of the clock or a signal must not become the
        best one in a tie.
        """
        self.check_losses()
        self.check_state(step, state)
        last = step == self.run.num_steps
        params, masks = self.run.recipe.pruner.finish(state.trainable, state.prune)
        self.checkpoints.save(
            step,
            state,
            network=Network(params, masks, state.model_state),
            average=Network(state.average.params, masks, state.model_state) if state.average else None,
            metric=validation.mean if validation is not None and (last or self.is_best(validation)) else None,
            metadata={"finished": last, "phase": 0},
        )


    def save_start(self, state: TrainState) -> None:
        """Saves what the run starts from as its checkpoint of step 0, which stays, and reads it back."""
        params, masks = self.run.recipe.pruner.finish(state.trainable, state.prune)
        network, about = Network(params, masks, state.model_state), {"finished": False, "phase": 0}
        self.checkpoints.save(0, state, network=network, metadata=about, stays=True)
        self.checkpoints.wait()
        self.checkpoints.restore_network(0)


@jax.jit
def _all_finite(tree) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
