"""The ascent that APGD and its targeted form share: momentum, halving steps, the best point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks._apgd_l1 import SparsePace, sparse_checkpoint, sparse_start, sparse_step
from bap_jax.attacks._inputs import check_count, check_keys, check_points
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import normalize, steepest_direction
from bap_jax.mathematics.objectives import rankable
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import clip_to_bounds, project_ball, project_l1_ball_in_box
from bap_jax.types import Array, Bounds

ApgdNorm = Literal["linf", "l2", "l1", "rms"]


_PHASES = (3.0, 2.0, 1.0)  # multiples of ε, with 30, 30 and 40 % of the steps


class _Ascent(NamedTuple):
    """What all runs have in common, and Python knows."""

    norm: ApgdNorm
    bounds: Bounds
    num_steps: int
    rho: float
    eot_samples: int
    random_logits: bool
    large_epsilon_schedule: bool
    region: Array | None = None  # [B, ...] bool, where features may change


class _Goal(NamedTuple):
    score: Callable[[Array], Array]  # logits [B, K] -> [B], what a run maximises
    reached: Callable[[Array], Array]  # logits [B, K] -> [B] bool, adversarial


class _Outcome(NamedTuple):
    images: Array  # [B, ...] the point that a run returns
    found: Array  # [B] it is adversarial
    score: Array  # [B] the best score met
    losses: Array  # [num_steps, B] the score after each step


class _Pace(NamedTuple):
    step: Array  # [B] η
    last: Array  # [B] the score before
    rises: Array  # [B] how often the score rose in this period
    halved: Array  # [B] η was halved at the last checkpoint
    checked: Array  # [B] the best score at the last checkpoint


class _Walk(NamedTuple):
    current: Array  # [B, ...]
    previous: Array  # [B, ...] the iterate before, for the momentum
    gradient: Array  # [B, ...] at the current point
    best: Array  # [B, ...] the point of the best score
    best_gradient: Array  # [B, ...]
    best_score: Array  # [B]
    kept: Array  # [B, ...] the latest adversarial point
    found: Array  # [B]
    pace: _Pace | SparsePace


class _Entry(NamedTuple):
    """A run's timetable, one entry per evaluation: of the point that a phase begins at, and after each of its steps."""

    index: Any  # of the evaluation
    radius: Any  # of the phase, in units of ε
    begins: Any  # bool: a phase after the first begins here
    inertia: Any  # 1 − a
    period: Any  # at a checkpoint the length of the period that it ends, elsewhere 0


def _ascend(
    ascent: _Ascent,
    goal: _Goal,
    logits_fn: Callable[..., Array],
    keys: Array | None,
    images: Array,
    epsilon: float | Array,
    start: Array | None,
) -> _Outcome:
    norm, bounds = ascent.norm, ascent.bounds
    phases = _PHASES if ascent.large_epsilon_schedule else (1.0,)
    timetable, steps = _timetable(ascent, phases)
    budget = jnp.zeros_like(images, shape=images.shape[:1]) + jnp.asarray(epsilon, images.dtype)

    def project(point: Array, radius: Array) -> Array:
        delta = point - images
        inside = project_l1_ball_in_box(delta, images, radius, bounds) if norm == "l1" else project_ball(delta, radius, norm)
        return clip_to_bounds(images + inside, bounds)

    def begin(point: Array, radius: Array) -> _Walk:
        point = project(point, radius)
        nowhere, never = jnp.zeros_like(point), radius != radius
        least = jnp.full_like(radius, -jnp.inf)
        pace: _Pace | SparsePace = _Pace(2 * radius, -least, jnp.zeros_like(radius), ~never, least)
        if norm == "l1":
            pace = sparse_start(point, images, radius, given=start is not None or len(phases) > 1)
        return _Walk(point, point, nowhere, point, nowhere, least, point, never, pace)

    def move(walk: _Walk, radius: Array, inertia: Array) -> Array:
        # With the zero gradient that a phase begins with, and no inertia, this is the point itself.
        if isinstance(walk.pace, SparsePace):
            return sparse_step(walk.current, walk.gradient, walk.pace, images, radius, bounds)
        upwards = steepest_direction(walk.gradient, norm)
        ahead = project(walk.current + expand(walk.pace.step, images) * upwards, radius)
        return project(ahead + inertia * (2 * walk.current - walk.previous - ahead), radius)

    def advance(walk: _Walk, entry: _Entry) -> tuple[_Walk, Array]:
        radius = entry.radius * budget
        if len(phases) > 1:
            walk = jax.lax.cond(entry.begins, lambda walk: begin(walk.best, radius), lambda walk: walk, walk)
        point = move(walk, radius, entry.inertia)
        gradient, scores, hit = _evaluate(ascent, goal, logits_fn, _fold(keys, entry.index + 1), point)
        walk = _record(walk, point, gradient, scores, hit)
        due = entry.period > 0
        if isinstance(walk.pace, SparsePace):
            adapted, back = sparse_checkpoint(walk.pace, walk.best, images, radius)
            pace: _Pace | SparsePace = jax.tree.map(lambda new, old: jnp.where(due, new, old), adapted, walk.pace)
            back = back & due
        else:
            pace, back = _observe(walk.pace, scores, walk.best_score, due, ascent.rho * entry.period)
        current, gradient = choose(back, walk.best, walk.current), choose(back, walk.best_gradient, walk.gradient)
        return walk._replace(current=current, gradient=gradient, pace=pace), scores

    begin_at = _random_start(ascent, keys, images, phases[0] * budget) if start is None else start
    walk, losses = jax.lax.scan(advance, begin(begin_at, phases[0] * budget), timetable)
    return _Outcome(choose(walk.found, walk.kept, walk.best), walk.found, walk.best_score, losses[steps])


def _evaluate(
    ascent: _Ascent, goal: _Goal, logits_fn: Callable[..., Array], keys: Array | None, point: Array
) -> tuple[Array, Array, Array]:
    """The gradient of the score at a point, the score, and whether the point is adversarial; means over random networks."""

    def value(point: Array, sample: int | Array) -> tuple[Array, tuple[Array, Array]]:
        logits = logits_fn(point, _fold(keys, sample)) if ascent.random_logits else logits_fn(point)
        scores = goal.score(logits)
        return jnp.sum(scores), (scores.astype(point.dtype), logits)

    def draw(sample: int | Array) -> tuple[Array, tuple[Array, Array]]:
        return jax.grad(value, has_aux=True)(point, sample)

    def add(total: Any, sample: Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, draw(sample)), None

    result = draw(0)
    if ascent.eot_samples > 1:
        total, _ = jax.lax.scan(add, result, jnp.arange(1, ascent.eot_samples))
        result = jax.tree.map(lambda leaf: leaf / ascent.eot_samples, total)
    gradient, (scores, logits) = result
    if ascent.region is not None:
        gradient = jnp.where(ascent.region, gradient, 0)
    return gradient, scores, goal.reached(logits)


def _record(walk: _Walk, point: Array, gradient: Array, scores: Array, hit: Array) -> _Walk:
    better = rankable(scores) > walk.best_score
    return _Walk(
        current=point,
        previous=walk.current,
        gradient=gradient,
        best=choose(better, point, walk.best),
        best_gradient=choose(better, gradient, walk.best_gradient),
        best_score=jnp.where(better, scores, walk.best_score),
        kept=choose(hit, point, walk.kept),
        found=walk.found | hit,
        pace=walk.pace,
    )


def _observe(pace: _Pace, scores: Array, best: Array, due: Array, enough: Array) -> tuple[_Pace, Array]:
    """The pace after a step, and which rows go on from their best point; decided where a checkpoint is ``due``."""
    rises = pace.rises + (scores > pace.last)
    halve = due & ((rises <= enough) | (~pace.halved & (pace.checked >= best)))
    return _Pace(
        step=jnp.where(halve, pace.step / 2, pace.step),
        last=scores,
        rises=jnp.where(due, 0, rises),
        halved=jnp.where(due, halve, pace.halved),
        checked=jnp.where(due, best, pace.checked),
    ), halve


def _timetable(ascent: _Ascent, phases: tuple[float, ...]) -> tuple[_Entry, np.ndarray]:
    """What each evaluation is told, and which of them follow a step."""
    lengths = [ascent.num_steps]
    if len(phases) > 1:
        lengths = 2 * [-(-3 * ascent.num_steps // 10)]
        lengths.append(ascent.num_steps - sum(lengths))
    starts = [0, *(np.cumsum(lengths[:-1]) + np.arange(1, len(lengths)))]
    num_entries = sum(lengths) + len(lengths)
    table = _Entry(
        index=np.arange(num_entries, dtype=np.int32),
        radius=np.repeat(np.asarray(phases, np.float32), np.add(lengths, 1)),
        begins=np.zeros(num_entries, bool),
        inertia=np.full(num_entries, 0.25, np.float32),
        period=np.zeros(num_entries, np.int32),
    )
    for at, length in zip(starts, lengths, strict=True):
        table.begins[at] = at > 0
        table.inertia[at : at + 2] = 0  # a = 1 at the first step
        table.period[at + 1 : at + 1 + length] = _periods(length, sparse=ascent.norm == "l1")
    return table, np.delete(np.arange(num_entries), starts)


def _periods(num_steps: int, *, sparse: bool) -> np.ndarray:
    """[num_steps] the length of the period that ends with a step, 0 where none does."""
    least, shrink = max(int(0.06 * num_steps), 1), max(int(0.03 * num_steps), 1)
    period = max(int((0.04 if sparse else 0.22) * num_steps), 1)
    ends, step = np.zeros(num_steps, np.int32), 0
    while step + period <= num_steps:
        step += period
        ends[step - 1] = period
        period = period if sparse else max(period - shrink, least)
    return ends


def _nothing(images: Array, found: Array, num_steps: int) -> _Outcome:
    """The result before any run: the images themselves."""
    none = jnp.zeros_like(images, shape=images.shape[:1])
    return _Outcome(images, found, none - jnp.inf, jnp.zeros_like(none, shape=(num_steps, *none.shape)))


def _first_success(run: Callable[[Array], _Outcome], numbers: Array, begin: _Outcome, last: int | None = None) -> _Outcome:
    """Run after run, up to the number ``last``: each row keeps its first success, and before it the best score."""

    def again(best: _Outcome, number: Array) -> tuple[_Outcome, None]:
        enough = jnp.all(best.found) if last is None else jnp.all(best.found) | (number > last)
        return jax.lax.cond(enough, lambda: best, lambda: _better(best, run(number))), None

    return jax.lax.scan(again, begin, numbers)[0]


def _better(old: _Outcome, new: _Outcome) -> _Outcome:
    wins = ~old.found & (new.found | (new.score > old.score))
    return _Outcome(
        choose(wins, new.images, old.images),
        old.found | new.found,
        jnp.where(wins, new.score, old.score),
        jnp.where(wins[None, :], new.losses, old.losses),
    )


def _random_start(ascent: _Ascent, keys: Any, images: Array, radius: Array) -> Array:
    def draw(key: Array) -> Array:
        uniform = ascent.norm == "linf"
        shape, dtype = images.shape[1:], images.dtype
        return jax.random.uniform(key, shape, dtype, -1, 1) if uniform else jax.random.normal(key, shape, dtype)

    noise = jax.vmap(lambda key: draw(jax.random.fold_in(key, 0)))(keys)
    # In L1 the projection that follows makes a point of the ball of it.
    return images + (noise if ascent.norm == "l1" else expand(radius, images) * normalize(noise, ascent.norm))


def _clean_logits(ascent: _Ascent, logits_fn: Callable[..., Array], keys: Array | None, images: Array) -> Array:
    if not ascent.random_logits:
        return logits_fn(images)
    samples = jax.lax.map(lambda sample: logits_fn(images, _fold(_fold(keys, 0), sample)), jnp.arange(ascent.eot_samples))
    return jnp.mean(samples, axis=0)


def _fold(keys: Array | None, number: int | Array) -> Array | None:
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _check(ascent: _Ascent, keys: Array | None, images: Array, start: Array | None) -> None:
    if ascent.norm not in get_args(ApgdNorm):
        raise SettingError("norm", ascent.norm, "one of linf, l2, l1, rms")
    check_count("num_steps", ascent.num_steps, 4 if ascent.large_epsilon_schedule else 1)
    check_count("eot_samples", ascent.eot_samples, 1)
    if not 0 <= ascent.rho <= 1:
        raise SettingError("rho", ascent.rho, "a share of the steps in [0, 1]")
    if ascent.eot_samples > 1 and not ascent.random_logits:
        raise SettingError("eot_samples", ascent.eot_samples, "1 without random_logits: every sample would be the same")
    if ascent.large_epsilon_schedule and ascent.norm != "l1":
        raise SettingError("large_epsilon_schedule", True, "False unless the norm is l1")
    if start is not None:
        check_points("start", start, images)
    if start is None or ascent.random_logits:
        check_keys(keys, images)
