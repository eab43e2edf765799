"""Several runs in one compiled step: the train step mapped over runs that differ only in what their states carry.

The runs of a group are its lanes. A lane computes what it computes whatever the others hold, so a run ends the same after
a crash and with other company, as long as the group has the same number of lanes. Against a run by itself it agrees to
rounding, as the compiler orders sums differently.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.runs.loop import first, opened
from bap_jax.runs.recipe import step_of, traced_recipe
from bap_jax.runs.run import Run
from bap_jax.runs.session import Session, Trained
from bap_jax.runs.settings import Settings
from bap_jax.runs.signals import Asked, Interrupted, stop_signals
from bap_jax.timing import Sample, in_turn, median, sample
from bap_jax.training import TrainState
from bap_jax.types import Batch, Bounds, Recipe

MOST_LANES = 32
MEMORY_SHARE = 0.8  # of what is free
ROUNDS = 3  # of timing

Told = Callable[[int, int, str], None]  # (steps done, steps in all, latest metrics in words)


def group_key(run: Run) -> Hashable | None:
    """What has to be equal among runs that are to train together; None for a run that has to train by itself: one of several
    phases, of the user's own slots, whose pruner observes its validation, or that ends when validation says so.

    What may differ are the leaves of the state (:meth:`bap_jax.runs.settings.Settings.leaves`): seed, radius, scale, rate,
    sparsities, the end of the ramp. The ramp's begin and frequency, in steps, may not: a mask update that is due in some lanes
    only would be computed at every step.
    """
    settings = run.settings
    if settings is None or not settings.shares_step() or run.mesh is not None or len(run.phases) > 1:
        return None
    if run.recipe().pruner.observe is not None or run.phases[0].patience is not None:
        return None
    neutral, ramp = settings.traced(), settings.ramp(run.num_steps)
    fixed = settings.changed(**settings.leaves())
    return fixed, neutral, int(ramp.begin_step), int(ramp.frequency), run.num_steps


Shared = tuple[bool, ...]  # for each leaf of a train state, in its order, whether all lanes share it


def shared_in(recipe: Recipe, state: TrainState) -> Shared:
    """Which leaves lanes share: the step, and what the slots say of their own states."""
    axes: Any = jax.tree.map(lambda _: 0, state)._replace(step=None)
    for field, slot in (("prune", recipe.pruner), ("budget", recipe.budget), ("loss", recipe.loss)):
        if slot.axes is not None:
            own = getattr(state, field)
            axes = axes._replace(**{field: jax.tree.broadcast(slot.axes(own), own, is_leaf=lambda axis: axis is None)})
    return tuple(axis is None for axis in jax.tree.leaves(axes, is_leaf=lambda axis: axis is None))


def _mapped(of: Callable, shared: Shared, *states: TrainState) -> TrainState:
    """``of(whether it is shared, *leaves)`` for every leaf of states of one structure."""
    each = zip(shared, *(jax.tree.leaves(state) for state in states), strict=True)
    return jax.tree.unflatten(jax.tree.structure(states[0]), [of(*leaves) for leaves in each])


def axes_of(state: TrainState, shared: Shared) -> TrainState:
    """The axes of ``jax.vmap`` over lanes: 0, or None where all lanes share a leaf."""
    return _mapped(lambda common, leaf: None if common else 0, shared, state)


def stack(states: Sequence[TrainState], shared: Shared) -> TrainState:
    """One state of all lanes. Those of shared leaves have to agree, except vectors such as the ends of ramps, of which it takes
    every value that there is.
    """

    def merge(common, *leaves):
        if not common:
            return jnp.stack(leaves)
        if leaves[0].ndim == 1:
            return jnp.asarray(np.unique(np.concatenate([np.ravel(leaf) for leaf in leaves])))
        return jnp.copy(leaves[0])

    return _mapped(merge, shared, *states)


@functools.partial(jax.jit, static_argnums=2)
def _take(state: TrainState, lane: jax.Array, shared: Shared) -> TrainState:
    return _mapped(lambda common, leaf: leaf if common else leaf[lane], shared, state)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _put(state: TrainState, own: TrainState, lane: jax.Array, shared: Shared) -> TrainState:
    return _mapped(lambda common, leaf, new: leaf if common else leaf.at[lane].set(new), shared, state, own)


def common_of(state: TrainState, shared: Shared) -> TrainState:
    """The state with nothing in it but what lanes share, as it is in this one."""
    return _mapped(lambda common, leaf: leaf if common else 0, shared, state)


def take(state: TrainState, lane: int, common: TrainState, shared: Shared) -> TrainState:
    """The state of one lane as its own run would have it; ``common`` is what :func:`common_of` found in an earlier one of it."""
    own = _take(state, lane, shared)
    return _mapped(lambda is_common, leaf, mine: mine if is_common else leaf, shared, own, common._replace(step=state.step))


_sparsities = jax.jit(jax.vmap(measured_sparsity))


class GroupStep:
    """The step of all lanes, ``(state, batches, which) -> (state, metrics)``, compiled once per number of lanes.

    ``batches`` has one batch per seed, ``[S, B, ...]``, and lane i takes number ``which[i]``.
    """

    def __init__(self, settings: Settings, num_classes: int, bounds: Bounds):
        self.alone_seconds: float | None = None  # what the first call of a run's own step took: mostly compiling
        recipe = traced_recipe(settings, num_classes, bounds)
        step = step_of(settings, recipe, num_classes)

        def several(state: TrainState, batches: Batch, which: jax.Array):
            axes = axes_of(state, shared_in(recipe, state))
            mapped = jax.vmap(step, in_axes=(axes, 0), out_axes=(axes, 0))
            return mapped(state, jax.tree.map(lambda leaf: leaf[which], batches))

        self._jitted = jax.jit(several, donate_argnums=0)
        self._compiled: dict[Any, Any] = {}

    def compiled(self, *arguments: Any) -> Any:
        """The step for arguments of these shapes."""
        key = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(arguments))
        if key not in self._compiled:
            self._compiled[key] = self._jitted.lower(*arguments).compile()
        return self._compiled[key]


@functools.lru_cache(maxsize=16)
def _group_step(settings: Settings, num_classes: int, bounds: Bounds) -> GroupStep:
    return GroupStep(settings, num_classes, bounds)


def group_step(run: Run) -> GroupStep:
    """The step of the group that a run is of; one and the same for all groups that can share its compile."""
    assert run.settings is not None  # or it had no group
    return _group_step(run.settings.traced(), run.splits.train.num_classes, run.splits.train.bounds)


class Lanes(NamedTuple):
    """How the batches of all lanes are made."""

    seeds: tuple[int, ...]
    which: np.ndarray  # [lanes] the position of a lane's seed

    @staticmethod
    def of(runs: Sequence[Run]) -> Lanes:
        seeds = tuple(dict.fromkeys(run.options.seed for run in runs))
        return Lanes(seeds, np.array([seeds.index(run.options.seed) for run in runs], np.int32))

    def batches(self, run: Run, start: int, stop: int | None = None) -> Iterator[Batch]:
        """The batches of every seed, stacked."""
        of_seed = [run._replace(options=dataclasses.replace(run.options, seed=seed)) for seed in self.seeds]
        each = [one.batches(0, start, stop) for one in of_seed]
        try:
            for several in zip(*each, strict=True):
                yield jax.tree.map(lambda *leaves: np.stack(leaves), *several)
        finally:
            for one in each:
                if isinstance(one, Generator):  # a thread of its own
                    one.close()


class Choice(NamedTuple):
    """How the runs of a group are trained, and what was measured for it: seconds for one step of every run."""

    lanes: int  # 1: one after the other
    loop_seconds: float | None = None
    together_seconds: float | None = None
    why: str = ""


def balanced(count: int, most: int) -> int:
    """How many lanes groups of at most ``most`` have, if ``count`` runs are spread over as few as possible.

    Example:
      >>> balanced(45, 32), balanced(9, 32), balanced(33, 16)
      (23, 9, 11)
    """
    return math.ceil(count / math.ceil(count / max(1, most)))


def choose(runs: Sequence[Run], steps: int, *, forced: bool = False) -> Choice:
    """Whether runs with one :func:`group_key` train faster together, by timing a few steps of both.

    Args:
      runs: at least two.
      steps: how many steps are to be made, all runs together.
      forced: together in any case, unless it does not fit the memory.
    """
    step, lanes = group_step(runs[0]), balanced(len(runs), MOST_LANES)
    alone = None if forced else _Alone(runs[0], step)
    if alone is not None and alone.seconds * steps < (step.alone_seconds or 0.0):
        return Choice(1, alone.seconds, None, "all steps take less time than compiling another")
    while lanes > 1:
        try:
            several = _Several(runs[:lanes], step)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            lanes = balanced(len(runs), lanes // 2)
            continue
        if several.fitting < lanes:
            lanes = balanced(len(runs), several.fitting)
            continue
        if alone is None:
            return Choice(lanes, why="asked for")
        samples = in_turn({"loop": alone.time, "together": several.time}, ROUNDS)
        loop, together = median(samples["loop"]) * lanes, median(samples["together"])
        return Choice(lanes if together < loop else 1, loop, together, "measured")
    return Choice(1, None, None, "more do not fit the memory")


class _Alone:
    """A run's own step, going on from a copy of its first state."""

    def __init__(self, run: Run, step: GroupStep):
        self.step = run.compiled(0, run.recipe())
        self.state = _first_state(run)
        self.batch = next(Lanes.of([run]).batches(run, 0, 1))
        self.batch = jax.tree.map(lambda leaf: leaf[0], self.batch)
        first = self.time().wall
        self.seconds = self.time().wall
        if step.alone_seconds is None:
            step.alone_seconds = first

    def time(self) -> Sample:
        def call():
            self.state, metrics = self.step(self.state, self.batch)
            jax.block_until_ready((self.state, metrics))

        return sample(call)


class _Several:
    """The step of a whole group on its first states, and how many lanes would fit the memory."""

    def __init__(self, runs: Sequence[Run], step: GroupStep):
        lanes = Lanes.of(runs)
        self.which, self.batches = lanes.which, next(lanes.batches(runs[0], 0, 1))
        states = [_first_state(run) for run in runs]
        self.state = stack(states, shared_in(runs[0].recipe(), states[0]))
        self.step = step.compiled(self.state, self.batches, self.which)
        self.fitting = fitting(len(runs), bytes_of(self.step), free_bytes())
        if self.fitting == len(runs):
            self.time()  # mask updates are often due at the first step

    def time(self) -> Sample:
        def call():
            self.state, metrics = self.step(self.state, self.batches, self.which)
            jax.block_until_ready((self.state, metrics))

        return sample(call)


def _first_state(run: Run) -> TrainState:
    return first(run, {}, None)[1]


def fitting(lanes: int, needed: int | None, free: int | None) -> int:
    """How many lanes fit the free memory, if so many need so much; all of them where one of the two is not known.

    Example:
      >>> fitting(16, 100, 1000), fitting(16, 1000, 500), fitting(16, None, 500)
      (16, 6, 16)
    """
    if needed is None or free is None or needed <= MEMORY_SHARE * free:
        return lanes
    return max(1, int(lanes * MEMORY_SHARE * free / needed))


def bytes_of(compiled: Any) -> int | None:
    """The memory that a compiled step needs while it runs; None if the compiler does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    needed = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    return needed - analysis.alias_size_in_bytes


def free_bytes() -> int | None:
    """The memory that is free on the first device: of an accelerator its own, of a CPU what the system can give."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = dict(line.split(":", 1) for line in file)
        return 1024 * int(found["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


@dataclasses.dataclass
class _Lane:
    """A run on its place in the group."""

    number: int
    session: Session
    state: TrainState | None  # what it starts from, until it does
    common: TrainState
    failed: Exception | None = None
    trained: Trained | None = None


def train_together(
    runs: Sequence[Run],
    outs: Sequence[Path | None],
    *,
    told: Told | None = None,
    save_seconds: float = 60.0,
) -> list[Trained | Exception | None]:
    """Trains runs in one compiled step; each has its own folder, which is what :func:`bap_jax.runs.loop.train` leaves behind.

    A run that was interrupted joins at the step of its newest checkpoint. One that fails is left alone from then on, the others
    go on.

    Args:
      runs: one per lane, with equal :func:`group_key`.
      outs: the run folders; None for a lane that only keeps its place: its run is finished, or not asked for.
      told: progress.
      save_seconds: least time between two checkpoints that are not the best so far.

    Returns:
      For each lane what came of it: as of ``train``, or what it failed with.

    Raises:
      Interrupted: SIGINT or SIGTERM came; every state is saved.
    """
    with contextlib.ExitStack() as open_folders:
        stop = open_folders.enter_context(stop_signals())
        lanes = []
        for number, (run, out) in enumerate(zip(runs, outs, strict=True)):
            if out is not None:
                session, state = open_folders.enter_context(opened(run, out, resume=True, save_seconds=save_seconds))
                lanes.append(_Lane(number, session, state, common_of(state, shared_in(session.recipe, state))))
        if lanes:
            _Group(runs, lanes, told).go(stop)
        found = {lane.number: lane.failed or lane.trained for lane in lanes}
        return [found.get(number) for number in range(len(runs))]


class _Group:
    def __init__(self, runs: Sequence[Run], lanes: Sequence[_Lane], told: Told | None):
        first = min(lanes, key=lambda lane: lane.session.start)
        self.lanes, self.told, self.total = lanes, told, first.session.run.num_steps
        self.start, self.interval = first.session.start, first.session.interval()
        assert first.state is not None
        states = {lane.number: lane.state for lane in lanes}
        others = [states.get(number) or first.state for number in range(len(runs))]
        self.shared = shared_in(first.session.recipe, first.state)
        self.state = stack([state._replace(step=first.state.step) for state in others], self.shared)
        filled = [run if number in states else first.session.run for number, run in enumerate(runs)]
        self.batching = Lanes.of(filled)
        for lane in lanes:  # a second copy of everything is not needed while they train
            lane.state = None if lane.session.start == self.start else lane.state
        self.run = first.session.run
        self.pending: list[tuple[int, jax.Array]] = []

    def go(self, stop: Asked) -> None:
        step, which = None, jnp.asarray(self.batching.which)
        batches = self.batching.batches(self.run, self.start, self.total)
        try:
            for done, batch in enumerate(batches, self.start + 1):
                for lane in self.lanes:
                    if lane.state is not None and lane.session.start == done - 1:
                        self.state, lane.state = _put(self.state, lane.state, lane.number, self.shared), None
                step = step or group_step(self.run).compiled(self.state, batch, which)
                self.state, metrics = step(self.state, batch, which)
                self.pending.append((done, metrics["loss"]))
                stopping = stop()
                self.follow(done, metrics, saving=any((self.interval.due(done), stopping, stop.save())))
                if stopping and done < self.total:
                    raise Interrupted(f"stopped after step {done} of {self.total}; the same command goes on from there")
                if all(lane.failed for lane in self.lanes):
                    return
        finally:
            batches.close()  # type: ignore[attr-defined]
        for lane in (lane for lane in self.lanes if not lane.failed):
            with _caught(lane):
                lane.trained = lane.session.trained(take(self.state, lane.number, lane.common, self.shared))

    def follow(self, done: int, metrics: dict[str, jax.Array], *, saving: bool) -> None:
        """What follows a step in every lane: its line, its validation, its checkpoint."""
        active = [lane for lane in self.lanes if lane.session.start < done and not lane.failed]
        logging = any(lane.session.logs(done) for lane in active)
        settling = saving or any(lane.session.validates(done) for lane in active)
        if not (logging or settling):
            return
        steps = [step for step, _ in self.pending]
        losses = np.asarray(jax.device_get([loss for _, loss in self.pending]))
        self.pending.clear()
        if logging:
            values, sparsities = jax.device_get((metrics, _sparsities(self.state.prune.masks)))
        for lane in active:
            session, number = lane.session, lane.number
            own = zip(steps, losses[:, number], strict=True)
            session.pending += [(step, loss) for step, loss in own if step > session.start]
            with _caught(lane):
                if session.logs(done):
                    session.log(done, {name: value[number] for name, value in values.items()}, sparsities[number])
                if saving or session.validates(done):
                    session.settle(done, take(self.state, number, lane.common, self.shared), {}, saving=saving)
        if self.told and logging:
            loss = float(np.nanmean(losses[-1])) if np.isfinite(losses[-1]).any() else math.nan
            self.told(done, self.total, f"{len(active)} together, loss {loss:.3f}")


@contextlib.contextmanager
def _caught(lane: _Lane) -> Iterator[None]:
    """What goes wrong in one lane is its own affair."""
    try:
        yield
    except Exception as error:
        lane.failed = error
