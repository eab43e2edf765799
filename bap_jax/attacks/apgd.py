"""Auto-PGD: projected gradient ascent that sets its own step size, and its targeted form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks._inputs import admit, check_count, check_keys, check_points
from bap_jax.attacks.apgd_l1 import SparsePace, sparse_checkpoint, sparse_start, sparse_step
from bap_jax.attacks.pgd import Objective
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import normalize, steepest_direction
from bap_jax.mathematics.objectives import cross_entropy, dlr_targeted, misclassified, rankable, successful
from bap_jax.mathematics.projections import clip_to_bounds, project_ball, project_l1_ball_in_box
from bap_jax.mathematics.rows import choose, expand
from bap_jax.types import Array, AttackResult, Bounds

ApgdNorm = Literal["linf", "l2", "l1", "rms"]
_PHASES = (3.0, 2.0, 1.0)  # multiples of ε, with 30, 30 and 40 % of the steps


def apgd(
    logits_fn: Callable[..., Array],
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    norm: ApgdNorm = "linf",
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    restarts: int = 1,
    first_restart: int | Array = 0,
    targeted: bool = False,
    objective: Objective = cross_entropy,
    rho: float = 0.75,
    eot_samples: int = 1,
    random_logits: bool = False,
    start: Array | None = None,
    large_epsilon_schedule: bool = False,
) -> AttackResult:
    """Gradient ascent on a loss of the label within ball and box, with momentum and a step that halves where it stops paying.

    L∞, L2 and RMS: z = P(x_i + η·d), x_{i+1} = P(x_i + a·(z − x_i) + (1 − a)·(x_i − x_{i−1})), d = sgn(g) or g/‖g‖, a = 0.75 (1
    at the first step), P onto the ball, then the box; η = 2ε at first. Checkpoints stand after a first period of ⌊.22N⌋ steps
    and then after periods shorter by ⌊.03N⌋ each, ⌊.06N⌋ at least (all three ≥ 1). There η is halved, and the ascent goes on
    from the best point with its gradient, for the examples whose loss (C1) rose in at most ρ of the period's steps, or (C2)
    has the same maximum as at the last checkpoint, where η was kept. L1: sparse steps without momentum, projected on ball and
    box at once, see :mod:`bap_jax.attacks.apgd_l1`; a checkpoint every ⌊.04N⌋ steps.

    ``objective=bap_jax.mathematics.dlr`` is APGD-DLR. One forward and backward pass per step, and one at the start.

    Each row gets its first restart that met an adversarial point, and of that run the *latest* adversarial point met, the start
    included (the best point of an objective need not be misclassified). A row that never succeeds gets the point of the best
    objective over all restarts. Once every row has succeeded the remaining restarts are not run.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; with ``random_logits`` it is called as ``logits_fn(images, keys)`` with [B]
        keys, one per row, fresh at every evaluation.
      keys: [B] typed keys, one per row; may be None where nothing is random (``start`` given, no ``random_logits``).
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      num_steps: N, gradient steps of one run, ≥ 1.
      restarts: how many runs; each folds its number into the keys.
      first_restart: the number of the first run, ≥ 0; may be traced: run r alone is ``first_restart=r, restarts=1``.
      targeted: make the network answer ``labels`` instead of anything else.
      objective: (logits, labels) to [B], larger = the label less believed; maximised, or minimised if ``targeted``.
      rho: ρ of C1; L1 has no use for it.
      eot_samples: how many evaluations of a random network are averaged per step: gradients, objectives, and the logits that
        say whether a point is misclassified. More than one needs ``random_logits``.
      random_logits: the network is random (see ``logits_fn``).
      start: [B, ...] where to begin, projected on ball and box. By default L∞: ε·t/max|t|, t uniform; L2 and RMS: ε·t/‖t‖, t
        normal; L1: the projection of a normal t; from the image.
      large_epsilon_schedule: L1 only: 30 % of the steps in the ball of 3ε, 30 % in that of 2ε, each phase from the best point
        of the one before, and only the points of the last 40 %, in the ball of ε, count.

    Returns:
      AttackResult: ``found`` where a point met was adversarial; ``loss`` [num_steps, B] is the objective after each step, of
        the run that is returned.

    Raises:
      SettingError: a shape, dtype or setting that cannot be, an objective with too few classes among them.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, -1.0], [1.0, -1.0]])
      >>> images, labels = jnp.array([[0.75, 0.5]]), jnp.array([0])
      >>> box = Bounds(-1.0, 1.0)
      >>> apgd(linear, None, images, labels, epsilon=0.75, num_steps=5, bounds=box, start=images).images
      Array([[ 0.  , -0.25]], dtype=float32)

    References:
      Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
      algorithm 1; L1: Croce and Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers";
      constants as in the repository fra31/auto-attack.
    """
    ascent = _Ascent(norm, bounds, num_steps, rho, eot_samples, random_logits, large_epsilon_schedule)
    _check(ascent, keys, images, start)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    start = None if start is None else jnp.asarray(start, images.dtype)
    expand(epsilon, images)  # refuses other shapes
    check_count("restarts", restarts, 1)
    check_count("first_restart", first_restart, 0)
    if restarts > 1 and start is not None and not random_logits:
        raise SettingError("restarts", restarts, "1 with a given start: every restart would be the same")
    sign = -1 if targeted else 1

    goal = _Goal(lambda logits: sign * objective(logits, labels), lambda logits: successful(logits, labels, targeted=targeted))

    def run(number: int | Array) -> _Run:
        return _ascend(ascent, goal, logits_fn, _fold(keys, number), images, epsilon, start)

    if restarts == 1:
        best = run(first_restart)
    else:
        nothing = _nothing(images, labels != labels, num_steps)
        best = _first_success(run, first_restart + jnp.arange(restarts), nothing)
    return give(best.images, best.found, sign * best.losses)


def apgd_targeted(
    logits_fn: Callable[..., Array],
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    norm: ApgdNorm = "linf",
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    num_targets: int = 9,
    first_target: int | Array = 1,
    rho: float = 0.75,
    eot_samples: int = 1,
    random_logits: bool = False,
    start: Array | None = None,
    large_epsilon_schedule: bool = False,
) -> AttackResult:
    """APGD towards one wrong class after the other, on the targeted DLR loss; any misclassification counts.

    The targets of an example are its wrong classes by descending logit of the image itself: rank 1 is the largest. As
    :func:`apgd` otherwise; each run folds its target's rank into the keys. An image that is misclassified as it is comes back.

    Args:
      logits_fn: as for :func:`apgd`.
      keys: [B] typed keys, or None where nothing is random.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers, the *true* classes.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      num_steps: gradient steps towards each target, ≥ 1.
      num_targets: how many ranks are tried; never more than K − 1.
      first_target: the first rank, from 1; may be traced: rank r alone is ``first_target=r, num_targets=1``. Ranks beyond
        K − 1 are left out.
      rho: as for :func:`apgd`.
      eot_samples: as for :func:`apgd`.
      random_logits: as for :func:`apgd`.
      start: as for :func:`apgd`, the same for every target.
      large_epsilon_schedule: as for :func:`apgd`.

    Returns:
      AttackResult: ``found`` where the image itself or a point met was misclassified; else the point nearest to success, that
        of the best objective of all targets. ``loss`` [num_steps, B] is the objective towards the target of the run that is
        returned, and 0 where the image itself is.

    Raises:
      SettingError: a shape, dtype or setting that cannot be; fewer than four classes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[2.0, -1.0, 0.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
      >>> images, labels = jnp.array([[0.75, 0.5]]), jnp.array([0])
      >>> box, keys = Bounds(-1.0, 1.0), jax.random.split(jax.random.key(0), 1)
      >>> [apgd_targeted(linear, keys, images, labels, epsilon=e, num_steps=9, bounds=box).found for e in (0.43, 0.44)]
      [Array([False], dtype=bool), Array([ True], dtype=bool)]

    References:
      Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
      section 5.
    """
    ascent = _Ascent(norm, bounds, num_steps, rho, eot_samples, random_logits, large_epsilon_schedule)
    _check(ascent, keys, images, start)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    start = None if start is None else jnp.asarray(start, images.dtype)
    expand(epsilon, images)  # refuses other shapes
    check_count("num_targets", num_targets, 1)
    check_count("first_target", first_target, 1)
    clean = _clean_logits(ascent, logits_fn, keys, images)
    num_wrong = clean.shape[-1] - 1
    if isinstance(first_target, int) and first_target > num_wrong:
        raise SettingError("first_target", first_target, f"at most {num_wrong}, the number of wrong classes")
    wrong = jnp.where(jnp.arange(num_wrong + 1)[None, :] == labels[:, None], -jnp.inf, clean)
    _, ranked = jax.lax.top_k(wrong, num_wrong)  # [B, K - 1]

    def run(rank: Array) -> _Run:
        targets = jax.lax.dynamic_index_in_dim(ranked, jnp.minimum(rank, num_wrong) - 1, axis=1, keepdims=False)
        goal = _Goal(lambda logits: dlr_targeted(logits, labels, targets), lambda logits: misclassified(logits, labels))
        return _ascend(ascent, goal, logits_fn, _fold(keys, rank), images, epsilon, start)

    ranks = first_target + jnp.arange(min(num_targets, num_wrong))
    best = _first_success(run, ranks, _nothing(images, misclassified(clean, labels), num_steps), last=num_wrong)
    return give(best.images, best.found, best.losses)


class _Ascent(NamedTuple):
    """What all runs have in common, and Python knows."""

    norm: ApgdNorm
    bounds: Bounds
    num_steps: int
    rho: float
    eot_samples: int
    random_logits: bool
    large_epsilon_schedule: bool


class _Goal(NamedTuple):
    score: Callable[[Array], Array]  # logits [B, K] -> [B], what a run maximises
    reached: Callable[[Array], Array]  # logits [B, K] -> [B] bool, adversarial


class _Run(NamedTuple):
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
) -> _Run:
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
    return _Run(choose(walk.found, walk.kept, walk.best), walk.found, walk.best_score, losses[steps])


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


def _nothing(images: Array, found: Array, num_steps: int) -> _Run:
    """The result before any run: the images themselves."""
    none = jnp.zeros_like(images, shape=images.shape[:1])
    return _Run(images, found, none - jnp.inf, jnp.zeros_like(none, shape=(num_steps, *none.shape)))


def _first_success(run: Callable[[Array], _Run], numbers: Array, begin: _Run, last: int | None = None) -> _Run:
    """Run after run, up to the number ``last``: each row keeps its first success, and before it the best score."""

    def again(best: _Run, number: Array) -> tuple[_Run, None]:
        enough = jnp.all(best.found) if last is None else jnp.all(best.found) | (number > last)
        return jax.lax.cond(enough, lambda: best, lambda: _better(best, run(number))), None

    return jax.lax.scan(again, begin, numbers)[0]


def _better(old: _Run, new: _Run) -> _Run:
    wins = ~old.found & (new.found | (new.score > old.score))
    return _Run(
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
