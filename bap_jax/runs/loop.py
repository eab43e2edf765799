"""The training loop: data, steps, validation, checkpoints, and going on after an interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.checkpoint import (
    CHECKPOINTS,
    Checkpoints,
    DamagedCheckpoint,
    check_readable,
    check_run,
    open_run,
)
from bap_jax.data import Splits, steps_per_epoch
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.parallel import check_batch_size, data_mesh, replicate
from bap_jax.runs.datasets import load_data
from bap_jax.runs.info import run_info
from bap_jax.runs.migrations import migrated, restored
from bap_jax.runs.recipe import initial_state, model_of, recipe_of
from bap_jax.runs.session import Progress, Run, Session, Trained
from bap_jax.runs.settings import Settings
from bap_jax.runs.signals import stop_signals
from bap_jax.runs.start import check_source, start_of
from bap_jax.runs.trust import code_in, remember
from bap_jax.training import TrainState

MAY_DIFFER = ("data_dir",)  # settings that a resumed run may have otherwise


def _may_differ(settings: Settings) -> tuple[str, ...]:
    """Of what a run was started from, its configuration knows the digest, and whoever resumes it need not."""
    return MAY_DIFFER if settings.init_digest is not None else (*MAY_DIFFER, "init_digest")


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
    num_steps = settings.num_steps(steps_per_epoch(len(splits.train), settings.batch_size))
    model = model_of(settings.model, splits.train.num_classes)
    info = run_info(model, splits.train, num_steps=num_steps, batch_size=settings.batch_size)
    return Run(settings, splits, model, info, recipe_of(settings, info), num_steps, mesh if mesh.size > 1 else None)


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
      CheckpointError: the newest checkpoint is damaged, or what is saved there cannot be read back; or what the run is to start
        from does not fit its model.
    """
    settings, begun = run.settings, run.settings.init_from is not None and saved_step(out)[0] is not None
    start = None if begun else start_of(settings, run.splits.train)
    network = None if start is None else start.network
    state = initial_state(run.model, run.recipe, settings, run.info, network)
    if start is not None:
        settings = dataclasses.replace(settings, init_digest=start.digest)
    _check_model(run, state)  # before the folder is made, so that a corrected command finds it as it was
    with (
        open_run(out, settings.as_dict(), resume=resume, may_differ=_may_differ(settings), migrated=migrated) as folder,
        Checkpoints(folder.checkpoints, keep=settings.keep) as checkpoints,
    ):
        latest = checkpoints.latest_step()
        state = _place(run, state)
        if latest is None and begun:
            raise CheckpointError(f"the checkpoints in {folder.checkpoints} were removed while this began")
        if latest is None:
            check_readable(folder.checkpoints)
        else:
            state = _restored(checkpoints, state, latest)
        folder.truncate_after(-1 if latest is None else latest)
        if jax.process_index() == 0:
            remember(out, code_in(settings.as_dict()).values())  # named by whoever trains here, not by the folder
        session = Session(run, folder, checkpoints, writer, save_seconds, latest)
        if start is not None:
            session.save_start(state)
        yield session, state


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
    check_run(out, settings.as_dict(), resume, may_differ=_may_differ(settings), migrated=migrated)
    if settings.init_from is not None and not (resume and saved_step(out)[0] is not None):
        check_source(settings)


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


def _place(run: Run, state: TrainState) -> TrainState:
    return state if run.mesh is None else replicate(run.mesh, state)


def _check_model(run: Run, state: TrainState) -> None:
    """Refuses a network whose shapes do not fit or whose outputs look like probabilities."""
    images, _ = run.splits.train.read(np.arange(min(32, len(run.splits.train))))
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    params = run.recipe.pruner.effective(state.trainable, state.prune)
    outputs, _ = run.model.apply(params, state.model_state, jnp.asarray(images, jnp.float32) / scale, train=False)
    logits, classes = np.asarray(outputs.logits), run.splits.train.num_classes
    if logits.shape != (len(images), classes):
        raise SettingError("--model", run.settings.model, f"logits of shape [B, {classes}], not {logits.shape}")
    if logits.min() >= 0 and np.allclose(logits.sum(-1), 1.0, atol=1e-3):
        raise SettingError("--model", run.settings.model, "a model that returns logits; these outputs look like probabilities")
