"""FMN: the fast minimum-norm attack for L0, L1, L2 and L∞."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bap_jax.attacks._inputs import admit, check_positive, check_steps
from bap_jax.attacks._nearest import Nearest, attack_result, cosine, farthest, keep_nearer, none_yet
from bap_jax.attacks.pgd import Objective
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import dual_norm, normalize, per_example_norm
from bap_jax.mathematics.objectives import dlr, margin_loss, successful
from bap_jax.mathematics.projections import clip_to_bounds, project_ball
from bap_jax.mathematics.top_k import project_l0
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn

FmnNorm = Literal["linf", "l2", "l1", "l0"]


def fmn(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    norm: FmnNorm = "linf",
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    initial_step_size: float | Array = 1.0,
    final_step_size: float | Array | None = None,
    initial_gamma: float | Array = 0.05,
    final_gamma: float | Array = 0.001,
    targeted: bool = False,
    objective: Objective = margin_loss,
    optimizer: optax.GradientTransformation | None = None,
    step_size_schedule: optax.Schedule | None = None,
    linear_estimate: bool | None = None,
) -> AttackResult:
    """A small perturbation by steps of falling size inside a ball whose radius closes in on the boundary.

    With m the loss (negative where the point is adversarial), g its gradient, q the dual of the norm p, and α and γ falling on
    cosines: ε ← min(ε·(1 − γ), nearest distance) if the point is adversarial, else ε·(1 + γ) if any before was, else ‖δ‖_p +
    |m|/‖g‖_q, the distance of a linear network's boundary; for L0 ε ← min(ε − 1, ⌊ε(1 − γ)⌋, nearest distance) if adversarial
    and else max(ε + 1, ⌊ε(1 + γ)⌋), from 1 on and never below it. ε is at most ‖max(upper − x, x − lower)‖_p. Then δ ← δ −
    α·g/‖g‖₂ whatever the norm, δ ← Π_ε(δ), x ← Π_box(x₀ + δ).

    Two deviations from the paper, both before anything adversarial was met, where the estimate aims at the boundary itself and
    may stay just inside it for good (public codes do, for a third of the rows that the tests compare): the estimate starts from
    max(‖δ‖_p, ε), since the box may have cut δ shorter than ε, and it is made (1 + last γ) times as large.

    How near it comes is up to the last α and γ. A :func:`bap_jax.attacks.bisection.bisection` of the result costs little and
    never harms.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; only derivatives with respect to the images are taken.
      keys: ignored, nothing here is random; it stands here so that attacks are called alike.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      norm: ``linf``, ``l2``, ``l1`` or ``l0`` (features, not pixels).
      bounds: the box; Bounds(-inf, inf) for none.
      num_steps: gradient steps, ≥ 1; one forward and one backward pass each, and one forward pass for the last point.
      initial_step_size: the first α, the L2 length of a step in input units; may be traced.
      final_step_size: the last α; a hundredth of the first by default.
      initial_gamma: the first γ.
      final_gamma: the last γ.
      targeted: look for the wanted class instead of for any other.
      objective: (logits, labels) to [B], larger = the label less believed; m is minus it, or it itself if ``targeted``.
      optimizer: what makes a step of g/‖g‖₂, e.g. ``optax.trace(0.9)`` or ``optax.scale_by_adam()``; a step is minus α times its
        update. It is applied to every row by itself, with δ as its parameters and m as its ``value``.
      step_size_schedule: step number to α, in place of the cosine.
      linear_estimate: before anything adversarial was met, whether ε follows |m|/‖g‖_q (which wants an m that is zero on the
        boundary) or has no limit but the box. By default it does where the objective is ``margin_loss`` or ``dlr``.

    Returns:
      AttackResult: the nearest adversarial point met, the image itself where there was none (``found`` false) or where the image
      is adversarial already; ``loss`` [num_steps, B] is the objective before each step.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> result = fmn(linear, None, jnp.array([[0.5, 0.5]]), jnp.array([0]), norm="linf", bounds=Bounds(-1.0, 1.0))
      >>> jnp.max(jnp.abs(result.images - 0.5)).round(2), result.found  # the plane is 3.5 / 7 away
      (Array(0.5, dtype=float32), Array([ True], dtype=bool))

    References:
      Pintor et al. 2021, "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", algorithm 1. The L2
      projection is the one on the ball; some public codes move every point to the sphere instead, or do not project at all. The
      hooks are those of HO-FMN, see :mod:`bap_jax.attacks.ho_fmn`.
    """
    _check(norm, num_steps, initial_step_size, final_step_size, initial_gamma, final_gamma)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    last = initial_step_size / 100 if final_step_size is None else final_step_size
    rule = optax.with_extra_args_support(optimizer or optax.identity())
    estimate = objective in (margin_loss, dlr) if linear_estimate is None else linear_estimate
    sign = 1 if targeted else -1
    limit = farthest(images, bounds, norm)

    def judge(current: Array) -> tuple[Array, Array]:
        logits = logits_fn(current)
        return objective(logits, labels), successful(logits, labels, targeted=targeted)

    def value(current: Array) -> tuple[Array, tuple[Array, Array]]:
        losses, hit = judge(current)
        return sign * jnp.sum(losses), (losses, hit)

    def radius(epsilon: Array, hit: Array, best: Array, gamma: Array, reach: Array) -> Array:
        if norm == "l0":
            fewer = jnp.minimum(jnp.minimum(epsilon - 1, jnp.floor(epsilon * (1 - gamma))), best)
            more = jnp.maximum(epsilon + 1, jnp.floor(epsilon * (1 + gamma)))
            return jnp.clip(jnp.where(hit, fewer, more), 1, limit)
        outside = jnp.where(jnp.isfinite(best), epsilon * (1 + gamma), reach)
        return jnp.minimum(jnp.where(hit, jnp.minimum(epsilon * (1 - gamma), best), outside), limit)

    def step_row(direction: Array, state: Any, delta: Array, loss: Array) -> tuple[Array, Any]:
        return rule.update(direction, state, delta, value=loss)

    def iterate(walk: _Walk, step: Array) -> tuple[_Walk, Array]:
        gradient, (losses, hit) = jax.grad(value, has_aux=True)(walk.current)
        delta = walk.current - images
        distance = per_example_norm(delta, norm)
        nearest = keep_nearer(walk.nearest, hit, walk.current, distance)
        gamma = cosine(step, num_steps, initial_gamma, final_gamma)
        reach = jnp.full_like(distance, jnp.inf)
        if estimate and norm != "l0":
            slope = per_example_norm(gradient, dual_norm(norm))
            tried = jnp.where(jnp.isfinite(walk.epsilon), walk.epsilon, 0)
            boundary = jnp.maximum(distance, tried) + jnp.abs(losses) / jnp.where(slope > 0, slope, 1)
            reach = jnp.where(slope > 0, boundary * (1 + final_gamma), jnp.inf)
        epsilon = radius(walk.epsilon, hit, nearest.distance, gamma, reach)
        if step_size_schedule is None:
            alpha = cosine(step, num_steps, initial_step_size, last)
        else:
            alpha = jnp.asarray(step_size_schedule(step))
        update, state = jax.vmap(step_row)(normalize(gradient, "l2"), walk.state, delta, sign * losses)
        moved = delta - alpha.astype(delta.dtype) * update
        moved = project_l0(moved, epsilon) if norm == "l0" else project_ball(moved, epsilon, norm)
        return _Walk(clip_to_bounds(images + moved, bounds), epsilon, state, nearest), losses

    epsilon = jnp.full_like(limit, 1 if norm == "l0" else jnp.inf)
    state = jax.vmap(rule.init)(jnp.zeros_like(images))
    walk, losses = jax.lax.scan(iterate, _Walk(images, epsilon, state, none_yet(images)), jnp.arange(num_steps))
    _, hit = judge(walk.current)
    nearest = keep_nearer(walk.nearest, hit, walk.current, per_example_norm(walk.current - images, norm))
    return attack_result(nearest, losses, give)


class _Walk(NamedTuple):
    current: Array  # [B, ...]
    epsilon: Array  # [B]
    state: Any  # the optimiser's, every leaf with the batch first
    nearest: Nearest


def _check(
    norm: str,
    num_steps: int,
    initial_step_size: float | Array,
    final_step_size: float | Array | None,
    initial_gamma: float | Array,
    final_gamma: float | Array,
) -> None:
    if norm not in ("linf", "l2", "l1", "l0"):
        raise SettingError("norm", norm, "one of linf, l2, l1, l0")
    check_steps("num_steps", num_steps)
    check_positive("initial_step_size", initial_step_size)
    if isinstance(final_step_size, (int, float)) and not final_step_size >= 0:
        raise SettingError("final_step_size", final_step_size, "a number ≥ 0, or None")
    for name, gamma in (("initial_gamma", initial_gamma), ("final_gamma", final_gamma)):
        if isinstance(gamma, (int, float)) and not 0 <= gamma < 1:
            raise SettingError(name, gamma, "a number in [0, 1)")
