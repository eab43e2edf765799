"""The training loop: data, steps, validation, checkpoints, and going on after an interruption."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax import data as data_layer
from bap_jax.checkpoint import (
    CHECKPOINTS,
    Checkpoints,
    DamagedCheckpoint,
    Network,
    SaveInterval,
    check_readable,
    check_run,
    open_run,
)
from bap_jax.cli.build import Slots, compiled_step, initial_state, model_of, slots_of
from bap_jax.cli.migrations import migrated, restored
from bap_jax.cli.settings import Settings
from bap_jax.cli.trust import code_in, remember
from bap_jax.cli.validation import Validation, validate
from bap_jax.data import Splits, steps_per_epoch, train_batches
from bap_jax.errors import CheckpointError, NonFiniteError, SettingError, StorageError
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.parallel import check_batch_size, data_mesh, replicate, shard_batch
from bap_jax.training import TrainState
from bap_jax.types import Model

MAY_DIFFER = ("data_dir",)  # settings that a resumed run may have otherwise
Progress = Callable[[int, int, dict[str, float]], None]  # (steps done, steps in all, latest metrics)


class Interrupted(Exception):
    """The run was asked to stop (SIGINT or SIGTERM) and saved its state; ``--resume`` goes on."""


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
    slots: Slots
    num_steps: int
    mesh: Any


def prepare(settings: Settings, splits: Splits, devices: int | None) -> Run:
    """Builds everything that a run needs and refuses what cannot work, before any work starts.

    Args:
      settings: checked here.
      splits: the data.
      devices: how many devices to spread the batch over; None for all.

    Raises:
      SettingError: a setting that makes no sense by itself, with this data or with these devices.
    """
    settings.check()
    settings.check_radii(splits.train.bounds, splits.train.image_shape)
    mesh = data_mesh(devices)
    check_batch_size(settings.batch_size, mesh, "--batch-size")
    per_epoch = steps_per_epoch(len(splits.train), settings.batch_size)
    num_steps = settings.num_steps(per_epoch)
    model = model_of(settings.model, splits.train.num_classes)
    slots = slots_of(settings, settings.ramp(num_steps), splits.train.bounds)
    return Run(settings, splits, model, slots, num_steps, mesh if mesh.size > 1 else None)


def load_data(settings: Settings, progress=None) -> Splits:
    """The three splits that the settings name."""
    splits = data_layer.load(
        settings.data,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        train_split=settings.train_split,
        test_split=settings.test_split,
        progress=progress,
    )
    if settings.limit is None:
        return splits
    if not hasattr(splits.train, "take"):
        raise SettingError("--limit", settings.limit, f"none: a {type(splits.train).__name__} has no take()")
    return splits._replace(train=splits.train.take(settings.limit))


def train(
    settings: Settings,
    out: Path,
    *,
    splits: Splits | None = None,
    resume: bool = False,
    devices: int | None = 1,
    writer: Any = None,
    progress: Progress | None = None,
    save_seconds: float = 5.0,
) -> Trained:
    """Trains as the settings say and leaves a run folder behind.

    Args:
      settings: what to do.
      out: the run folder; has to be absent or empty unless ``resume``.
      splits: the data, if it is loaded already.
      resume: go on from the newest checkpoint in ``out``; the end state is bit-identical to that of an uninterrupted run on the
        same machine, devices and versions.
      devices: how many devices; None for all.
      writer: something with ``add_scalar(name, value, step)``, e.g. a TensorBoard writer.
      progress: called now and then.
      save_seconds: least time between two checkpoints that are not the best so far.

    Raises:
      SettingError: see :func:`prepare`; an occupied folder; a resumed run with other settings.
      NonFiniteError: the loss is no longer finite.
      Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    check_out(settings, out, resume)
    run = prepare(settings, splits or load_data(settings), devices)
    with opened(run, out, resume=resume, writer=writer, save_seconds=save_seconds) as (session, state), stop_signals() as stop:
        return session.trained(session.go(state, stop, progress))


@contextlib.contextmanager
def opened(
    run: Run, out: Path, *, resume: bool, writer: Any = None, save_seconds: float = 5.0
) -> Iterator[tuple[Session, TrainState]]:
    """The run's folder, open until the context ends, and the state to go on from: the newest checkpoint's, or the first.

    Before the first step a checkpoint is read back: the newest, or of a new run a small one that is saved for it.

    Raises:
      SettingError: as for :func:`train`.
      CheckpointError: the newest checkpoint is damaged, or what is saved there cannot be read back.
    """
    settings = run.settings
    state = initial_state(run.model, run.slots, settings, run.splits.train.image_shape, len(run.splits.train))
    _check_model(run, state)  # before the folder is made, so that a corrected command finds it as it was
    with (
        open_run(out, settings.as_dict(), resume=resume, may_differ=MAY_DIFFER, migrated=migrated) as folder,
        Checkpoints(folder.checkpoints, keep=settings.keep) as checkpoints,
    ):
        latest = checkpoints.latest_step()
        state = _place(run, state)
        if latest is None:
            check_readable(folder.checkpoints)
        else:
            state = _restored(checkpoints, state, latest)
        folder.truncate_after(-1 if latest is None else latest)
        if jax.process_index() == 0:
            remember(out, code_in(settings.as_dict()).values())  # named by whoever trains here, not by the folder
        yield Session(run, folder, checkpoints, writer, save_seconds, latest), state


def _restored(checkpoints: Checkpoints, state: TrainState, step: int) -> TrainState:
    """The state of a checkpoint. Which one to go on from instead of a damaged one, and when, is for the user to say."""
    try:
        return restored(checkpoints, state, step)
    except DamagedCheckpoint as error:
        instead = "another --out starts anew"
        if error.whole is not None:
            instead = f"remove {error.folder}, and --resume goes on from step {error.whole}"
        raise CheckpointError(f"{error}: {instead}") from error


def check_out(settings: Settings, out: Path, resume: bool) -> None:
    """Refuses settings that make no sense and a folder that this run cannot go into; cheap, before data is read.

    Raises:
      SettingError: see :func:`train`.
    """
    settings.check()
    if re.match(r"[A-Za-z0-9]+:/", str(out)):  # gs://bucket, of which pathlib leaves one slash
        raise SettingError("--out", str(out), "a path in the file system")
    check_run(out, settings.as_dict(), resume, may_differ=MAY_DIFFER, migrated=migrated)


def finished_step(out: Path) -> int | None:
    """The last step of a run that is complete, None if it is not (or never began)."""
    latest, finished = saved_step(out)
    return latest if finished else None


def saved_step(out: Path) -> tuple[int | None, bool]:
    """The step of a run's newest checkpoint, None if there is none, and whether the run is known to be complete with it."""
    checkpoints = Path(out) / CHECKPOINTS
    if not checkpoints.is_dir():
        return None, False
    with Checkpoints(checkpoints, read_only=True) as found:
        latest = found.latest_step()
        try:
            return latest, latest is not None and bool(found.metadata(latest).get("finished"))
        except CheckpointError:  # going on with the run will say what is wrong
            return latest, False


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
        step_fn = compiled_step(run.settings, run.slots, run.splits.train.num_classes, run.splits.train.bounds, run.mesh)
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
        sparsity = float(measured_sparsity(self.run.slots.pruner.finish(state.trainable, state.prune)[1]))
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
        params, masks = self.run.slots.pruner.finish(state.trainable, state.prune)
        self.checkpoints.save(
            step,
            state,
            network=Network(params, masks, state.model_state),
            metric=validation.mean if validation is not None and (last or self.is_best(validation)) else None,
            metadata={"finished": last, "phase": 0},
        )


@jax.jit
def _all_finite(tree) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _place(run: Run, state: TrainState) -> TrainState:
    return state if run.mesh is None else replicate(run.mesh, state)


def _check_model(run: Run, state: TrainState) -> None:
    """Refuses a network whose shapes do not fit or whose outputs look like probabilities."""
    images, _ = run.splits.train.read(np.arange(min(32, len(run.splits.train))))
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    params = run.slots.pruner.effective(state.trainable, state.prune)
    outputs, _ = run.model.apply(params, state.model_state, jnp.asarray(images, jnp.float32) / scale, train=False)
    logits, classes = np.asarray(outputs.logits), run.splits.train.num_classes
    if logits.shape != (len(images), classes):
        raise SettingError("--model", run.settings.model, f"logits of shape [B, {classes}], not {logits.shape}")
    if logits.min() >= 0 and np.allclose(logits.sum(-1), 1.0, atol=1e-3):
        raise SettingError("--model", run.settings.model, "a model that returns logits; these outputs look like probabilities")


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask the loop to stop after the step it is in; a second one ends it at once."""
    asked: list[int] = []

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        os.write(2, b"bap: stopping after this step and saving; once more to stop at once\n")  # print is not safe here

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: its owner decides what signals mean
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
