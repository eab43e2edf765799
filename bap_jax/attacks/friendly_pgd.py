"""PGD as friendly adversarial training and TRADES use it: it may stop early, start with little noise, maximise a divergence."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit, check_keys
from bap_jax.attacks.pgd import Objective
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import steepest_direction
from bap_jax.mathematics.objectives import cross_entropy, kl_divergence, misclassified
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import clip_to_bounds, project_ball, uniform_in_ball
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm

START_NOISE = 1e-3  # standard deviation of the start "normal", of a box of width 1


def friendly_pgd(
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    tau: int | Array | None = None,
    num_steps: int = 10,
    relative_step_size: float = 7 / 31,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    objective: Objective | Literal["kl"] = cross_entropy,
    start: Literal["uniform", "normal"] = "uniform",
    noise: float = 0.0,
) -> AttackResult:
    """PGD that stops, per example, at the test which finds it misclassified for the ``tau + 1``-th time.

    A test precedes each step. An example that goes on moves by x <- box(x0 + ball(x + alpha d + noise - x0)), d the steepest
    direction of the objective.

    With ``objective="kl"`` it maximises KL(p(x0) || p(x)), the divergence from the clean prediction, as TRADES does. That has a
    zero gradient at x0: the start has to be a random one, which both are.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: [B] typed keys, one per row.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers, the true classes.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      tau: how many tests an example may fail before the one that stops it, at least 0; may be traced. None: it never stops.
      num_steps: steps, at least 1.
      relative_step_size: alpha as a fraction of epsilon; 7/31 is the authors' 0.007 at 0.031.
      norm: ``linf``, ``l2`` or ``rms``.
      bounds: the box.
      objective: (logits, labels) to [B], maximised; or ``"kl"``.
      start: ``"uniform"`` in the ball, or ``"normal"``: 0.001 times a standard normal draw, as in TRADES.
      noise: standard deviation of the normal noise added in every step, in input units; 0.001 in friendly adversarial training.

    Returns:
      AttackResult: ``found`` is true where any iterate, the start included, was misclassified; ``loss`` [num_steps, B] is the
        objective before each step.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images, labels, keys = jnp.array([[0.93]]), jnp.array([0]), jax.random.split(jax.random.key(0), 1)
      >>> logits_fn = lambda x: jnp.concatenate([x, 1 - x], axis=-1)  # class 0 above 0.5
      >>> settings = dict(epsilon=0.8, relative_step_size=0.125, start="normal")
      >>> ends = [friendly_pgd(logits_fn, keys, images, labels, tau=tau, **settings).images[0, 0] for tau in (0, 1, 2)]
      >>> [round(float(end), 1) for end in ends]
      [0.4, 0.3, 0.2]

    References:
      Zhang et al. 2020, "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger", algorithm 1; public repository
      zjfheart/Friendly-Adversarial-Training. Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and
      Accuracy"; public repository yaodongyu/TRADES.
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    check_keys(keys, images)
    if norm not in ("linf", "l2", "rms"):
        raise SettingError("norm", norm, "'linf', 'l2' or 'rms'")
    if num_steps < 1:
        raise SettingError("num_steps", num_steps, "an integer of at least 1")
    if not relative_step_size > 0:
        raise SettingError("relative_step_size", relative_step_size, "a fraction of epsilon above 0")
    if not noise >= 0:
        raise SettingError("noise", noise, "a number of at least 0")
    if start not in ("uniform", "normal"):
        raise SettingError("start", start, "'uniform' or 'normal'")

    rises = _divergence_from(logits_fn(images)) if objective == "kl" else objective
    size = expand(relative_step_size * jnp.asarray(epsilon, images.dtype), images)

    def normal(number: int | Array) -> Array:
        draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), images.shape[1:], images.dtype))
        return draw(keys)

    def inside(points: Array) -> Array:
        return clip_to_bounds(images + project_ball(points - images, epsilon, norm), bounds)

    def value(points: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = logits_fn(points)
        losses = rises(logits, labels)
        return jnp.sum(losses), (losses, misclassified(logits, labels))

    def iterate(walk: _Walk, number: Array) -> tuple[_Walk, Array]:
        gradient, (losses, hit) = jax.grad(value, has_aux=True)(walk.current)
        stopped = walk.stopped if tau is None else walk.stopped | (hit & (walk.hits >= tau))
        moved = walk.current + size * steepest_direction(gradient, norm)
        moved = inside(moved + noise * normal(1 + number) if noise > 0 else moved)
        return _Walk(choose(stopped, walk.current, moved), walk.hits + hit, stopped), losses

    if start == "uniform":
        unit = jax.vmap(lambda key: uniform_in_ball(jax.random.fold_in(key, 0), images.shape[1:], norm, images.dtype))(keys)
        first = clip_to_bounds(images + expand(epsilon, images) * unit, bounds)
    else:
        first = inside(images + START_NOISE * normal(0))
    nothing = jnp.zeros_like(labels)
    walk, losses = jax.lax.scan(iterate, _Walk(first, nothing, nothing > 0), jnp.arange(num_steps))
    found = (walk.hits > 0) | misclassified(logits_fn(walk.current), labels)
    return give(walk.current, found, losses)


def _divergence_from(clean: Array) -> Objective:
    return lambda logits, labels: kl_divergence(clean, logits)


class _Walk(NamedTuple):
    current: Array  # [B, ...]
    hits: Array  # [B] tests at which the example was misclassified
    stopped: Array  # [B]
