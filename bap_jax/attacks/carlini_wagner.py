"""Carlini and Wagner's L2 attack: Adam on distance plus weighted margin, in coordinates without a box."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bap_jax.attacks._inputs import admit, check_positive, check_steps
from bap_jax.attacks._nearest import Nearest, attack_result, keep_nearer, none_yet, per_row
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.objectives import margin_loss, successful
from bap_jax.mathematics.per_example import choose
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn

_INSIDE = 1 - 1e-6  # images on a wall of the box would lie at infinity


def carlini_wagner(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    bounds: Bounds = Bounds(),
    num_steps: int = 1000,
    search_steps: int = 9,
    step_size: float | Array = 0.01,
    initial_constant: float | Array = 1e-3,
    confidence: float | Array = 0.0,
    targeted: bool = False,
    early_abort: bool = False,
) -> AttackResult:
    """A small L2 perturbation that minimises ‖δ‖₂² + c·max(z_y − max_{j≠y} z_j + κ, 0), with c found by search.

    With a and b the middle and the half width of the box, x' = a + b·tanh(artanh((1 − 1e-6)·(x − a)/b) + w) lies inside whatever
    w is; Adam minimises over w, from w = 0 for every c. Where a c gave an adversarial point the next is the middle of the
    smallest that did and the largest that did not; where none has so far it is ten times as large.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; only derivatives with respect to the images are taken.
      keys: ignored, nothing here is random; it stands here so that attacks are called alike.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      bounds: the box, which has to be finite.
      num_steps: steps of Adam for every c, ≥ 1; one forward and one backward pass each.
      search_steps: how many c are tried, ≥ 1.
      step_size: Adam's, in the coordinates w.
      initial_constant: the first c, in squared input units per logit; a scalar or [B].
      confidence: κ ≥ 0 in logit units: points count as adversarial from a lead of κ on.
      targeted: look for the wanted class instead of for any other.
      early_abort: leave a row alone, for the c at hand, from the first tenth of the steps on that lowered its objective by less
        than 0.01 %, and skip steps once every row of the batch is left alone. Judged row by row, unlike in public codes, so that
        rows stay independent.

    Returns:
      AttackResult: the nearest adversarial point met, the image itself where there was none (``found`` false) or where the image
      is adversarial already; ``loss`` [num_steps, B] is what is minimised, before each step for the last c; steps that
      ``early_abort`` skips repeat the value it last looked at.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> result = carlini_wagner(linear, None, jnp.array([[0.5, 0.5]]), jnp.array([0]), bounds=Bounds(-1.0, 1.0), num_steps=200)
      >>> jnp.linalg.norm(result.images - 0.5).round(2), result.found  # the plane is 3.5 / 5 away
      (Array(0.7, dtype=float32), Array([ True], dtype=bool))

    References:
      Carlini and Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", section VI.A; constants as in their
      repository nn_robust_attacks.
    """
    _check(bounds, num_steps, search_steps, step_size, initial_constant, confidence)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    adam = optax.scale_by_adam()
    sign = -1 if targeted else 1
    lower, upper = (jnp.broadcast_to(jnp.asarray(side, images.dtype), images.shape) for side in bounds)
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    start = jnp.arctanh(_INSIDE * jnp.clip((images - middle) / jnp.where(half > 0, half, 1), -1, 1))

    def judge(current: Array) -> tuple[Array, Array]:
        """How far the point is from being adversarial by κ, and whether it is."""
        logits = logits_fn(current)
        lead = jnp.where(jnp.arange(logits.shape[1])[None, :] == labels[:, None], sign * confidence, 0).astype(logits.dtype)
        lack = jnp.maximum(confidence - sign * margin_loss(logits, labels), 0)
        return lack, successful(logits + lead, labels, targeted=targeted)

    def value(offset: Array, constant: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        current = clip_to_bounds(middle + half * jnp.tanh(start + offset), bounds)
        lack, hit = judge(current)
        losses = jnp.sum(jnp.square(current - images), axis=tuple(range(1, images.ndim))) + constant * lack
        return jnp.sum(losses), (losses, hit, current)

    def descend(constant: Array, walk: _Walk, step: Array) -> tuple[_Walk, Array]:
        gradient, (losses, hit, current) = jax.grad(value, has_aux=True)(walk.offset, constant)
        nearest = keep_nearer(walk.nearest, hit, current, per_example_norm(current - images, "l2"))
        walk = walk._replace(nearest=nearest, hit=walk.hit | hit)
        update, state = adam.update(gradient, walk.state)
        offset = walk.offset - step_size * update
        if early_abort:
            look = step % max(num_steps // 10, 1) == 0
            active = walk.active & ~(look & (losses > 0.9999 * walk.checked))
            offset = choose(active, offset, walk.offset)
            walk = walk._replace(active=active, checked=jnp.where(look, losses, walk.checked))
        return walk._replace(offset=offset, state=state), losses

    def search(carry: tuple[_Search, Nearest, Array], _: None) -> tuple[tuple[_Search, Nearest, Array], None]:
        bracket, nearest = carry[:2]
        still = jnp.zeros_like(images)
        none = labels != labels
        walk = _Walk(still, adam.init(still), nearest, none, ~none, per_row(jnp.inf, images))

        def iterate(walk: _Walk, step: Array) -> tuple[_Walk, Array]:
            if not early_abort:
                return descend(bracket.constant, walk, step)
            skip = lambda walk, _: (walk, walk.checked)  # noqa: E731
            return jax.lax.cond(jnp.any(walk.active), lambda *now: descend(bracket.constant, *now), skip, walk, step)

        walk, losses = jax.lax.scan(iterate, walk, jnp.arange(num_steps))
        return (_next(bracket, walk.hit), walk.nearest, losses), None

    _, hit = judge(images)
    nearest = keep_nearer(none_yet(images), hit, images, per_row(0, images))
    bracket = _Search(per_row(initial_constant, images), per_row(0, images), per_row(jnp.inf, images))
    blank = jnp.zeros_like(images, shape=(num_steps, *labels.shape))
    (_, nearest, losses), _ = jax.lax.scan(search, (bracket, nearest, blank), None, length=search_steps)
    return attack_result(nearest, losses, give)


class _Walk(NamedTuple):
    offset: Array  # [B, ...] w
    state: optax.OptState
    nearest: Nearest
    hit: Array  # [B] this c gave an adversarial point
    active: Array  # [B]
    checked: Array  # [B] the objective when it was last looked at


class _Search(NamedTuple):
    constant: Array  # [B] c
    low: Array  # [B] the largest that gave none
    high: Array  # [B] the smallest that gave an adversarial point


def _next(bracket: _Search, hit: Array) -> _Search:
    low = jnp.where(hit, bracket.low, jnp.maximum(bracket.low, bracket.constant))
    high = jnp.where(hit, jnp.minimum(bracket.high, bracket.constant), bracket.high)
    return _Search(jnp.where(jnp.isfinite(high), (low + high) / 2, 10 * bracket.constant), low, high)


def _check(
    bounds: Bounds,
    num_steps: int,
    search_steps: int,
    step_size: float | Array,
    initial_constant: float | Array,
    confidence: float | Array,
) -> None:
    for side in bounds:
        if isinstance(side, (int, float)) and not math.isfinite(side):
            raise SettingError("bounds", bounds, "a finite box: the attack works in coordinates that only such a box has")
    check_steps("num_steps", num_steps)
    check_steps("search_steps", search_steps)
    check_positive("step_size", step_size)
    check_positive("initial_constant", initial_constant)
    if isinstance(confidence, (int, float)) and not (math.isfinite(confidence) and confidence >= 0):
        raise SettingError("confidence", confidence, "a finite number ≥ 0")
