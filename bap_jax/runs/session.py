"""One process's part of a phase of a run: from the step it starts at to the phase's end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.checkpoint import SaveInterval
from bap_jax.errors import NonFiniteError, StorageError
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.parallel import shard_batch
from bap_jax.runs.mask_course import MaskCourse
from bap_jax.runs.memory import Kept
from bap_jax.runs.run import Run
from bap_jax.runs.signals import Asked, Interrupted
from bap_jax.runs.validation import Validation, clean_loss, validate
from bap_jax.training import TrainState
from bap_jax.types import Network, Recipe

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

Progress = Callable[[int, int, dict[str, float]], None]  # (steps done, steps in all, latest metrics)


class Trained(NamedTuple):
    """What a finished run is known by."""

    folder: Path | None  # None of a run in memory
    steps: int
    sparsity: float
    validation: Validation
    best_step: int
    seconds: float
    resumed_from: int | None  # the step that a resumed run went on from
    changed_versions: dict[str, tuple[Any, Any]]  # what differs from the versions that a resumed run was started with


class Place(NamedTuple):
    """Where in a run its newest checkpoint is."""

    phase: int = 0
    first: int = 0  # the step of the run that the phase begins at
    step: int = 0  # of the run
    ended: bool = False  # the phase ends here
    best_loss: float = math.inf  # of a phase that ends by validation: the smallest loss so far,
    waited: int = 0  # and the epochs since


class Session:
    """One process's part of a phase: from the step it starts at to the phase's end.

    Steps of lines and checkpoints count over the run, ``state.step`` within the phase.

    Attributes:
      start: the step of the run that it starts at.
      first, end: the steps of the run that the phase begins and ends at; it may find itself that it ends earlier.
      last: whether it is the run's last phase.
      best_loss, waited: of a phase that ends by validation: the smallest loss so far, and the epochs since.
      pending: (step, loss) not yet looked at, so that the device is not waited for.
    """

    def __init__(self, run: Run, recipe: Recipe, folder, checkpoints: Kept, writer, place: Place, resumed_from: int | None):
        self.run, self.recipe, self.folder, self.checkpoints, self.writer = run, recipe, folder, checkpoints, writer
        self.number, self.resumed_from, self.start, self.first = place.phase, resumed_from, place.step, place.first
        self.phase, self.last = run.phases[place.phase], place.phase == len(run.phases) - 1
        self.end = place.step if place.ended else place.first + run.lengths[place.phase]
        self.validate_every = max(1, math.ceil(run.lengths[place.phase] / run.options.validations))
        self.best_loss, self.waited = place.best_loss, place.waited
        self.pending: list[tuple[int, Any]] = []
        self.last_validation: Validation | None = None
        self.began = time.monotonic()
        self.clock = (self.start, self.began)
        self.course: MaskCourse | None = None  # of a run that trains by itself

    @property
    def total(self) -> int:
        """The run's last step, if no later phase ends early."""
        return self.end + sum(self.run.lengths[self.number + 1 :])

    def interval(self) -> SaveInterval:
        """When to save: every epoch or every ``save_seconds``, whichever comes later."""
        return SaveInterval(self.run.steps_per_epoch, self.run.options.save_seconds, start=self.start)

    def go(self, state: TrainState, stop: Asked, progress: Progress | None) -> TrainState:
        """Trains to the end of the phase.

        Raises:
          NonFiniteError: the loss is no longer finite.
          Interrupted: ``stop`` said so before the run's end; the state is saved.
        """
        run, interval = self.run, self.interval()
        step_fn = self.compiled()
        self.course = MaskCourse(self.first, run.steps_per_epoch, self.total)
        self.course.begin(self.start, state.prune.masks, self.checkpoints.metadata(self.start) if self.start > self.first else {})
        batches = run.batches(self.number, self.start - self.first, self.end - self.first)
        try:
            for done, batch in enumerate(batches, self.start + 1):
                state, metrics = step_fn(state, batch if run.mesh is None else shard_batch(run.mesh, batch))
                self.pending.append((done, metrics["loss"]))
                if self.is_over(done, state):
                    self.end = done
                self.follow(done, state)
                if self.logs(done):
                    line = self.log(done, jax.device_get(metrics), measured_sparsity(state.prune.masks))
                    if progress:
                        progress(done, self.total, line)
                stopping = stop()  # asked once: what is saved and what is said have to agree
                state = self.settle(done, state, metrics, saving=any((interval.due(done), stopping, stop.save())))
                if stopping and not (self.last and done == self.end):
                    raise Interrupted(f"stopped after step {done} of {self.total}; --resume goes on from there")
                if done == self.end:
                    break
        finally:
            if isinstance(batches, Generator):  # a thread of its own
                batches.close()
        return state

    def follow(self, step: int, state: TrainState) -> None:
        """Notes how far masks moved and, where the phase ends, the memory that was needed up to then."""
        assert self.course is not None
        found = self.course.after(step, state.prune.masks)
        if step == self.end:
            found |= (self.course.last(state.prune.masks) if self.last else {}) | peak_bytes()
        if found:
            self.keep_line(step, **found)

    def compiled(self) -> Callable:
        """The step of this phase."""
        return self.run.compiled(self.number, self.recipe)

    def is_over(self, step: int, state: TrainState) -> bool:
        """Whether a phase that says so itself ends after this step."""
        if (step - self.first) % self.run.steps_per_epoch:
            return False
        waited = self.has_waited(step, state)
        return waited or (self.phase.until is not None and bool(self.phase.until(jax.device_get(state.prune))))

    def has_waited(self, step: int, state: TrainState) -> bool:
        """Whether the loss on validation data has not fallen for as many epochs as the phase has patience, once it is settled."""
        if self.phase.patience is None or not self.settled(step, state):
            return False
        loss = clean_loss(self.run, self.recipe.pruner, state)
        self.keep_line(step, validation_clean_loss=loss)
        self.write(step, {"validation_clean_loss": loss})
        self.best_loss, self.waited = (loss, 0) if loss < self.best_loss else (self.best_loss, self.waited + 1)
        return self.waited >= self.phase.patience

    def trained(self, state: TrainState) -> Trained:
        """What the run is known by, once everything is written."""
        validation = self.last_validation or validate(self.run, self.recipe.pruner, state)
        self.checkpoints.wait()
        best = self.checkpoints.best_step(self.number)
        sparsity = float(measured_sparsity(self.recipe.pruner.finish(state.trainable, state.prune)[1]))
        seconds, changed = time.monotonic() - self.began, self.folder.changed_versions
        folder = None if self.folder.folder is None else Path(self.folder.folder)
        return Trained(folder, self.end, sparsity, validation, best or 0, seconds, self.resumed_from, changed)

    def logs(self, step: int) -> bool:
        """Whether a step has its line in metrics.jsonl."""
        return step % self.run.options.log_every == 0 or step == self.end

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
            self.folder.log(step, phase=self.phase.name, **values)
        except StorageError as error:
            self.checkpoints.wait()  # the one that is being written may fail, too
            raise StorageError(f"{error}; {self.kept()}") from error

    def settle(self, step: int, state: TrainState, metrics: Mapping[str, Any], *, saving: bool) -> TrainState:
        """What a step leaves behind besides its line: a validation, which the pruner may observe, and a checkpoint."""
        validated = self.validate_at(step, state)
        if validated is not None and self.recipe.pruner.observe is not None:
            state = self.observed(state, validated, metrics)
        best = self.is_best(step, state, validated)
        if saving or step == self.end or best:
            self.save(step, state, validated, best)
        return state

    def observed(self, state: TrainState, validation: Validation, metrics: Mapping[str, Any]) -> TrainState:
        """The state after its pruner saw what was measured: the metrics of this step, and the validation."""
        measures = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()} | validation.as_dict()
        observe = self.recipe.pruner.observe
        assert observe is not None
        found = observe(jax.device_get(state.prune), measures)

        def placed(new: Any, old: jax.Array) -> jax.Array:
            return jax.device_put(np.asarray(new, old.dtype), old.sharding)

        return state._replace(prune=jax.tree.map(placed, found, state.prune))

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
        """Whether a step is one of those, fixed ones and the last, that a validation may follow."""
        return step == self.end or (step - self.first) % self.validate_every == 0

    def settled(self, step: int, state: TrainState) -> bool:
        """Whether the network is as sparse as asked for; a best one has to be."""
        settled = self.recipe.pruner.settled
        return settled is None or bool(settled(jnp.int32(step - self.first), state.prune))

    def validate_at(self, step: int, state: TrainState) -> Validation | None:
        """Validates where that is due: a network that is not settled only at the end, or for a pruner that observes it."""
        observes = self.recipe.pruner.observe is not None
        if not self.validates(step) or not (step == self.end or observes or self.settled(step, state)):
            return None
        self.check_losses()
        validation = validate(self.run, self.recipe.pruner, state)
        self.last_validation = validation
        named = validation.as_dict()
        self.keep_line(step, **named)
        self.write(step, named)
        return validation

    def is_best(self, step: int, state: TrainState, validation: Validation | None) -> bool:
        """Whether a validation is the best of the phase so far, among those of settled networks."""
        if validation is None or not self.settled(step, state):
            return False
        best = self.checkpoints.best_step(self.number)
        return best is None or validation.mean > self.checkpoints.metadata(best)["metric"]

    def save(self, step: int, state: TrainState, validation: Validation | None, best: bool) -> None:
        """Saves a state that is known to be good.

        Only the best checkpoint so far and the last of a phase get a metric: one saved because of the clock or a signal must not
        become the best one in a tie. The last of a phase that others follow stays, for these.
        """
        self.check_losses()
        self.check_state(step, state)
        ended = step == self.end
        measured = validation is not None and (best or (ended and self.settled(step, state)))
        params, masks = self.recipe.pruner.finish(state.trainable, state.prune)
        self.checkpoints.save(
            step,
            state,
            network=Network(params, masks, state.model_state),
            average=Network(state.average.params, masks, state.model_state) if state.average else None,
            metric=validation.mean if validation is not None and measured else None,
            metadata=self.about(ended=ended) | (self.course.about(step) if self.course is not None and not ended else {}),
            stays=ended and not self.last,
        )

    def save_start(self, state: TrainState, network: Network) -> None:
        """Saves what the run starts from as its checkpoint of step 0, which stays, and reads it back."""
        self.checkpoints.save(0, state, network=network, metadata=self.about(ended=False), stays=True)
        self.checkpoints.wait()
        self.checkpoints.restore_network(0)

    def about(self, *, ended: bool) -> dict[str, Any]:
        """What a checkpoint says of its place in the run."""
        where: dict[str, Any] = {
            "phase": self.number,
            "phase_name": self.phase.name,
            "phase_begin": self.first,
            "phase_ended": ended,
        }
        if self.phase.patience is not None and self.best_loss < math.inf:
            where |= {"best_loss": self.best_loss, "waited": self.waited}
        return {"finished": ended and self.last, **where}


def place_of(about: Mapping[str, Any]) -> Place:
    """The place of a checkpoint, from its metadata; earlier versions knew one phase.

    Example:
      >>> place_of({"step": 7, "finished": True, "phase": 0})
      Place(phase=0, first=0, step=7, ended=True, best_loss=inf, waited=0)
    """
    ended = bool(about.get("phase_ended", about.get("finished")))
    waited = float(about.get("best_loss", math.inf)), int(about.get("waited", 0))
    return Place(int(about.get("phase", 0)), int(about.get("phase_begin", 0)), int(about["step"]), ended, *waited)


def peak_bytes() -> dict[str, float]:
    """The most memory so far, in bytes: ``peak_bytes_process``, resident, and ``peak_bytes_device``, of the first device, where
    the system and the device say so.

    Example:
      >>> peak_bytes().get("peak_bytes_process", math.inf) > 1e6
      True
    """
    found = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        found["peak_bytes_process"] = float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        found["peak_bytes_device"] = float(stats["peak_bytes_in_use"])
    return found


@jax.jit
def _all_finite(tree) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
