"""The training loop: phase after phase, checkpoints, and going on after an interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bap_jax.checkpoint import (
    CHECKPOINTS,
    Checkpoints,
    DamagedCheckpoint,
    check_readable,
    check_run,
    open_run,
    read_config,
)
from bap_jax.data import Splits
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.mathematics.masks import full_masks
from bap_jax.parallel import agreed
from bap_jax.runs.datasets import load_data
from bap_jax.runs.memory import Kept
from bap_jax.runs.migrations import migrated, restored
from bap_jax.runs.networks import Networks, kept_part, network_before, networks_of, stored_start
from bap_jax.runs.run import Run, check_model, prepare
from bap_jax.runs.session import Place, Progress, Session, Trained, place_of
from bap_jax.runs.settings import AUTO, Settings, parse_epsilons
from bap_jax.runs.signals import Asked, stop_signals
from bap_jax.runs.start import check_source, start_of
from bap_jax.runs.training_options import TrainingOptions
from bap_jax.runs.trust import code_in, remember
from bap_jax.training import TrainState
from bap_jax.training import network as network_in
from bap_jax.training.phases import START, restrict
from bap_jax.types import Network, Recipe

MAY_DIFFER = ("data_dir",)  # settings that a resumed run may have otherwise


def _may_differ(settings: Settings) -> tuple[str, ...]:
    """What a resumed run may say otherwise.

    Of what a run was started from, its configuration knows the digest, and whoever resumes it need not. The name of a method of
    one phase says nothing that its settings do not.
    """
    names: tuple[str, ...] = MAY_DIFFER if settings.in_phases() else (*MAY_DIFFER, "method")
    names += ("validation_epsilon",) if settings.validation_epsilon == AUTO else ()  # not told: as the run has it
    return names if settings.init_digest is not None else (*names, "init_digest")


def train(
    settings: Settings,
    out: Path,
    *,
    splits: Splits | None = None,
    resume: bool = False,
    devices: int | None = 1,
    shard: bool = False,
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
      devices: how many devices; None for all, of all processes.
      shard: spread weights, moments and masks over the devices as well; a run may be resumed with or without.
      writer: something with ``add_scalar(name, value, step)``, e.g. a TensorBoard writer.
      progress: called now and then.
      save_seconds: least time between two checkpoints that are not the best so far.

    Raises:
      SettingError: see :func:`prepare`; an occupied folder; a resumed run with other settings.
      NonFiniteError: the loss is no longer finite.
      Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    check_out(settings, out, resume)
    run = prepare(settings, splits or load_data(settings), devices, shard)
    with stop_signals() as stop, opened(run, out, resume=resume, writer=writer, save_seconds=save_seconds) as (session, state):
        session, state = to_the_end(session, state, stop.agree(lambda answer: agreed(answer, run.mesh)), progress)
        return session.trained(state)


@contextlib.contextmanager
def opened(
    run: Run, out: Path, *, resume: bool, writer: Any = None, save_seconds: float | None = None
) -> Iterator[tuple[Session, TrainState]]:
    """The folder of a run of settings, open until the context ends, and the phase to go on with: that of the newest checkpoint,
    or the first.

    Before the first step a checkpoint is read back: the newest, or of a new run a small one that is saved for it.

    Raises:
      SettingError: as for :func:`train`.
      CheckpointError: the newest checkpoint is damaged, or what is saved there cannot be read back; or what the run is to start
        from does not fit its model.
    """
    settings = run.settings
    assert settings is not None
    if save_seconds is not None:
        run = run._replace(options=dataclasses.replace(run.options, save_seconds=save_seconds))
    if settings.validation_epsilon == AUTO:
        run = run._replace(options=_validated_as_before(run.options, Path(out)))
    begun = settings.init_from is not None and saved_step(out)[0] is not None
    start = None if begun else start_of(settings, run.splits.train)
    network: Network | None = None
    networks: Mapping[str, Network] = {}
    if start is not None:
        settings = dataclasses.replace(settings, init_digest=start.digest)
        network = kept_part(start.network)
        networks = {START: network}
    elif begun:
        networks = Networks({START: lambda: stored_start(run, Path(out) / CHECKPOINTS)})
    try:
        recipe, state = first(run, networks, network)
    except SettingError as error:
        if error.name != "pruner":
            raise
        raise SettingError("--pruner", settings.pruner, f"{error.expected}: --init-masks none") from None
    check_model(run, recipe, state, settings.model)  # before the folder is made, so that a corrected command finds it as it was
    with (
        open_run(out, settings.as_dict(), resume=resume, may_differ=_may_differ(settings), migrated=migrated) as folder,
        Checkpoints(folder.checkpoints, keep=run.options.keep) as checkpoints,
    ):
        if begun and checkpoints.latest_step() is None:
            raise CheckpointError(f"the checkpoints in {folder.checkpoints} were removed while this began")
        found = going_on(run, recipe, state, network, folder, checkpoints, writer)
        if jax.process_index() == 0:
            remember(out, code_in(settings.as_dict()).values())  # named by whoever trains here, not by the folder
        yield found


def first(run: Run, networks: Mapping[str, Network], given: Network | None) -> tuple[Recipe, TrainState]:
    """The recipe of the first phase and the state before its first step.

    Args:
      run: with its phases.
      networks: what the phase is told of.
      given: weights and statistics to begin with, and masks if the run's pruner is to begin with some; None for new ones, or for
        a state that a checkpoint is restored into.
    """
    info = run.info(0, networks)
    recipe = run.recipe(0, info)
    masks = None
    if run.masked or run.phases[0].score is not None:
        params = jax.eval_shape(run.model.init, run.key(), run.example)[0] if given is None else None
        masks = given.masks if given is not None else jax.tree.map(lambda _: jnp.bool_(True), params)
    return recipe, run.first_state(0, recipe, info, given, masks)


def scored(run: Run, recipe: Recipe, state: TrainState, given: Network | None) -> TrainState:
    """The state before the first step of a new run: where its first phase has a score, with the masks that this finds.

    Args:
      run: with its phases.
      recipe, state: of the first phase, as of :func:`first`.
      given: the network that the run was told to start from, None if it was told of none.
    """
    if run.phases[0].score is None:
        return state
    info, begun = run.info(0, {} if given is None else {START: given}), network_in(state, recipe)
    return run.first_state(0, recipe, info, begun, run.scores(0, info, begun))


def going_on(
    run: Run, recipe: Recipe, state: TrainState, given: Network | None, folder, checkpoints: Checkpoints, writer: Any
) -> tuple[Session, TrainState]:
    """The phase that an open folder goes on with, and its state: of the newest checkpoint, or the first of all.

    Args:
      run: with its phases.
      recipe, state: of the first phase, as of :func:`first`.
      given: the network that the run was told to start from, None if it was told of none, or if its checkpoint is there.
      folder, checkpoints, writer: what is written to.
    """
    latest = checkpoints.latest_step()
    if latest is None:
        check_readable(folder.checkpoints)
        folder.truncate_after(-1)
        session = Session(run, recipe, folder, checkpoints, writer, Place(), None)
        state = run.place(scored(run, recipe, state, given))
        if given is not None:
            session.save_start(state, given)
        return session, state
    place = place_of(checkpoints.metadata(latest))
    if place.phase or (place.ended and len(run.phases) > 1):
        recipe, state, place = _later(run, checkpoints, place)
    state = run.place(state)
    if place.step > place.first or not place.phase:
        state = _restored(checkpoints, state, latest)
    folder.truncate_after(latest)
    return Session(run, recipe, folder, checkpoints, writer, place, latest), state


def _later(run: Run, kept: Kept, place: Place) -> tuple[Recipe, TrainState, Place]:
    """A phase after the first: that of a place, or if that is over and not the last, the next one.

    Its state is the one before its first step; where there is a checkpoint of a later one, a state of that structure.
    """
    if place.ended and place.phase < len(run.phases) - 1:
        place = Place(place.phase + 1, place.step, place.step)
    number = place.phase
    networks = networks_of(run, kept, number)
    info = run.info(number, networks)
    recipe = run.recipe(number, info)
    network = network_before(run, kept, number, networks)
    masks = network.masks if restrict(network.masks) else None
    if run.phases[number].score is not None:
        masks = full_masks(network.params) if place.step > place.first else run.scores(number, info, network)
    return recipe, run.first_state(number, recipe, info, network, masks), place


def to_the_end(session: Session, state: TrainState, stop: Asked, progress: Progress | None) -> tuple[Session, TrainState]:
    """Trains a phase and those after it; the last one, and the state at its end.

    Args:
      session, state: to begin with.
      stop, progress: see :meth:`Session.go`.
    """
    while True:
        state = session.go(state, stop, progress)
        if session.last:
            return session, state
        session.checkpoints.wait()
        run, at = session.run, Place(session.number, session.first, session.end, ended=True)
        recipe, state, place = _later(run, session.checkpoints, at)
        state, before = run.place(state), session
        session = Session(run, recipe, before.folder, before.checkpoints, before.writer, place, before.resumed_from)
        session.began = before.began


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
    scheme = re.match(r"([A-Za-z0-9]+):/", str(out))  # gs://bucket, of which pathlib leaves one slash
    if scheme:
        why = "a bucket has neither the lock nor the renaming by which a run is one process's and its files whole"
        if scheme[1] == "s3":
            why = "the checkpoint library writes no S3"
        raise SettingError("--out", str(out), f"a path in the file system: {why}; a mounted bucket or a copy afterwards will do")
    if str(settings.data_dir).startswith("s3:/"):
        raise SettingError("--data-dir", settings.data_dir, "a path in the file system, or gs://: TFDS reads no S3")
    check_run(out, settings.as_dict(), resume, may_differ=_may_differ(settings), migrated=migrated)
    if settings.init_from is not None and not (resume and saved_step(out)[0] is not None):
        check_source(settings)


def _validated_as_before(options: TrainingOptions, out: Path) -> TrainingOptions:
    """The options with the radii that a run which is there already was told, if it was."""
    try:
        told = str(migrated(read_config(out)).get("validation_epsilon", AUTO))
    except SettingError:  # no run yet, or one that is refused in a moment
        return options
    return options if told == AUTO else dataclasses.replace(options, validation_epsilons=parse_epsilons("config.json", told))


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
