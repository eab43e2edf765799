"""Training objects: a module, the slots of a recipe, arrays; in memory or into a folder that a later call goes on with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bap_jax.checkpoint import Checkpoints, open_run, read_metrics
from bap_jax.data import Splits, check, from_arrays
from bap_jax.errors import SettingError
from bap_jax.models import as_model, fast_model
from bap_jax.parallel import check_batch_size, check_chunks, data_mesh
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.loop import first, going_on, scored, to_the_end
from bap_jax.runs.memory import MemoryCheckpoints, MemoryFolder
from bap_jax.runs.networks import kept_part
from bap_jax.runs.restore import OBJECTS, fitted
from bap_jax.runs.run import Run, check_model, run_of
from bap_jax.runs.session import Place, Progress, Session
from bap_jax.runs.signals import Asked, stop_signals
from bap_jax.runs.start import digest_of
from bap_jax.runs.training_options import TrainingOptions
from bap_jax.runs.validation import Validation
from bap_jax.training import TrainState, network
from bap_jax.training.phases import START, restrict
from bap_jax.types import Length, Network, Phase, Recipe, RunInfo


class Fitted(NamedTuple):
    """What came of :func:`fit`.

    Attributes:
      state: the whole state after the last step.
      network: what the state holds, pruned weights being zero, as a function: ``network(images)`` are logits.
      best: the network of the last phase that was best on validation data; None if none was validated as sparse as asked for.
      recipe: the slots of the last phase.
      metrics: one dict a line, as ``metrics.jsonl`` has them.
      validation: the last one.
      steps: of all phases.
      folder: the run folder; None of a run in memory.
      resumed_from: the step that it went on from; None if it began.
    """

    state: TrainState
    network: Deployed
    best: Deployed | None
    recipe: Recipe
    metrics: list[dict[str, Any]]
    validation: Validation
    steps: int
    folder: Path | None
    resumed_from: int | None


def fit(
    model: Any,
    recipe: Recipe | Callable[[RunInfo], Recipe] | Sequence[Phase],
    splits: Splits | tuple[Any, Any],
    *,
    epochs: float | None = None,
    steps: int | None = None,
    options: TrainingOptions | None = None,
    start: Network | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    devices: int | None = 1,
    callback: Progress | None = None,
    writer: Any = None,
) -> Fitted:
    """Trains a network.

    Args:
      model: a Flax Linen module, a function from ``nnx.Rngs`` to a Flax NNX module, or a :class:`bap_jax.types.Model`. On a CPU
        its convolutions are computed by :func:`bap_jax.fast`, unless the environment says BAP_CONV=plain.
      recipe: the slots: optimiser (any optax transformation), pruner, budget, loss; or a function that makes them, told of the
        number of steps and more by a :class:`bap_jax.types.RunInfo`; or phases, each with its own. The ``slots`` of a phase are
        such a recipe or function, or a mapping of the four names, each to an object, to a function of the info, or to a pair of a
        name and options, ``("magnitude", {"final_sparsity": 0.9})``, as :class:`bap_jax.runs.Settings` has them.
      splits: data, or a pair of arrays, images and labels, see :func:`bap_jax.data.from_arrays`.
      epochs, steps: how long; one of the two, and none with phases, which have lengths of their own.
      options: batches, seed, validation, what is logged and kept; by default those of ``TrainingOptions()``.
      start: a network to begin with; its masks are an upper bound, no later mask keeps a weight that they prune.
      out: the run folder: metrics, checkpoints. None for a run in memory.
      resume: go on from the newest checkpoint in ``out``, to the bit-identical end; everything else has to be given as before.
      devices: how many devices to spread the batch over; None for all.
      callback: ``(steps done, steps in all, metrics)``, at every line of the metrics.
      writer: something with ``add_scalar(name, value, step)``, e.g. a TensorBoard writer.

    Returns:
      The :class:`Fitted`.

    Raises:
      SettingError: before any work starts: what makes no sense, or an occupied folder, or one with another run.
      DataError: data that is unfit.
      NonFiniteError: the loss is no longer finite.
      Interrupted: with ``out``, SIGINT or SIGTERM came; the state is saved.

    Example:
      >>> import flax.linen as nn, optax, bap_jax as bap
      >>> images = np.random.default_rng(0).uniform(size=(64, 4)).astype(np.float32)
      >>> def recipe(info):
      ...     pruner = bap.pruners.magnitude(bap.Ramp(0.0, 0.5, 0, info.num_steps // 2, 2))
      ...     return bap.Recipe(optax.adam(1e-2), pruner, bap.budgets.none(), bap.losses.clean())
      >>> options = bap.runs.TrainingOptions(batch_size=16, validation_epsilons=(0.0,))
      >>> found = bap.runs.fit(nn.Dense(2), recipe, (images, images.argmax(1) % 2), steps=8, options=options)
      >>> found.network(images).shape, float(bap.measured_sparsity(found.network.masks))
      ((64, 2), 0.5)
    """
    made, options = fast_model(as_model(model)), options or TrainingOptions()
    phases = _phases(recipe, epochs, steps)
    splits = splits if isinstance(splits, Splits) else from_arrays(*splits)
    for split in splits[:2]:
        check(split)
    options.check(splits.train.bounds, splits.train.image_shape)
    mesh = data_mesh(devices)
    check_batch_size(options.batch_size, mesh)
    for name in ("microbatches", "attack_chunks"):
        check_chunks(options.batch_size, mesh, getattr(options, name), name)
    run = run_of(made._replace(init=jax.jit(made.init)), phases, splits, options, mesh)
    if start is not None:
        start = kept_part(fitted(start, run.model, splits.train.image_shape, "the network to start from"))
        run = run._replace(masked=restrict(start.masks))
    first_recipe, state = first(run, {} if start is None else {START: start}, start)
    check_model(run, first_recipe, state, type(model).__name__)
    with _kept(run, first_recipe, state, start, out, resume, writer) as (session, state, stop):
        session, state = to_the_end(session, state, stop, callback)
        return _fitted(session, state)


def _phases(recipe: Any, epochs: float | None, steps: int | None) -> tuple[Phase, ...]:
    if isinstance(recipe, Recipe) or callable(recipe):
        return (Phase("train", recipe, Length(epochs, steps)),)
    phases = tuple(recipe)
    if not all(isinstance(phase, Phase) for phase in phases):
        raise SettingError("recipe", recipe, "a Recipe, a function that returns one, or Phases")
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None:
            raise SettingError(name, value, "nothing with phases, which have lengths of their own")
    return phases


@contextlib.contextmanager
def _kept(
    run: Run, recipe: Recipe, state: TrainState, start: Network | None, out: Any, resume: bool, writer: Any
) -> Iterator[tuple[Session, TrainState, Asked]]:
    """The phase to begin or to go on with, and where it leaves what it finds."""
    if out is None:
        if resume:
            raise SettingError("resume", resume, "False without out: a run in memory leaves nothing to go on with")
        kept = MemoryCheckpoints()
        session = Session(run, recipe, MemoryFolder(), kept, writer, Place(), None)
        state = run.place(scored(run, recipe, state, start))
        if start is not None:
            session.save_start(state, start)
        yield session, state, Asked()
        return
    config = {OBJECTS: described(run, start)}
    with (
        stop_signals() as stop,  # first: whoever sees the folder may ask
        open_run(out, config, resume=resume, may_differ=(f"{OBJECTS}.options.save_seconds",)) as folder,
        Checkpoints(folder.checkpoints, keep=run.options.keep) as checkpoints,
    ):
        session, state = going_on(run, recipe, state, start, folder, checkpoints, writer)
        yield session, state, stop


def described(run: Run, start: Network | None) -> dict[str, Any]:
    """What a configuration can say of objects: enough to refuse another run, not enough to make them again."""
    train, phases = run.splits.train, []
    for phase in run.phases:
        phases.append(
            {"name": phase.name, **(phase.length or Length())._asdict(), "weights": phase.weights, "masks": phase.masks}
        )
    sides = {side: np.asarray(value).tolist() for side, value in train.bounds._asdict().items()}
    data = {"name": train.name, "num_examples": len(train), "num_classes": train.num_classes, "bounds": sides}
    options = dataclasses.asdict(run.options) | {"validation_epsilons": list(run.options.validation_epsilons)}
    return {
        "phases": phases,
        "options": options,
        "data": data | {"image_shape": list(train.image_shape)},
        "start": None if start is None else digest_of(start),
    }


def _fitted(session: Session, state: TrainState) -> Fitted:
    run, kept = session.run, session.checkpoints
    trained = session.trained(state)
    shape = run.splits.train.image_shape

    def deployed(found: Network, step: int) -> Deployed:
        about = kept.metadata(step) | {"data": run.splits.train.name}
        return Deployed(run.model, found, shape, about, lambda split: getattr(run.splits, split))

    best = kept.best_step(session.number)
    return Fitted(
        state,
        deployed(network(state, session.recipe), trained.steps),
        None if best is None else deployed(fitted(kept.restore_network(best), run.model, shape, f"step {best}"), best),
        session.recipe,
        session.folder.lines if trained.folder is None else read_metrics(trained.folder),
        trained.validation,
        trained.steps,
        trained.folder,
        trained.resumed_from,
    )
