"""σ-zero: few features, by gradients of a smooth stand-in for the L0 norm."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bap_jax.attacks._inputs import admit, check_positive, check_steps
from bap_jax.attacks._nearest import Nearest, attack_result, cosine, keep_nearer, none_yet, per_row
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import normalize, per_example_norm
from bap_jax.mathematics.objectives import margin_loss, successful
from bap_jax.mathematics.per_example import expand, num_features
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn


def sigma_zero(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    bounds: Bounds = Bounds(),
    num_steps: int = 1000,
    sigma: float | Array = 1e-3,
    initial_threshold: float | Array = 0.3,
    threshold_step: float | Array = 0.01,
    initial_step_size: float | Array = 1.0,
    targeted: bool = False,
) -> AttackResult:
    """A perturbation of few features (not pixels).

    With δ in units of the box's width, the loss is max(z_y − max_{j≠y} z_j, 0) + (1/D)·Σ δ²/(δ² + σ), g its gradient over its
    largest magnitude; δ ← δ − η·Adam(g), clipped to the box; then τ moves by ``threshold_step``·η, upwards where the point
    before the step was adversarial and downwards where not, within [0, 1], and features with |δ| < τ become zero. η falls from
    ``initial_step_size`` to a tenth of it on a cosine.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; only derivatives with respect to the images are taken.
      keys: ignored, nothing here is random; it stands here so that attacks are called alike.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      bounds: the box; where it is not finite δ is in input units.
      num_steps: gradient steps, ≥ 1; one forward and one backward pass each, and one forward pass for the last point.
      sigma: σ, how sharply the stand-in tells zero from the rest, in squared widths.
      initial_threshold: the first τ, in widths.
      threshold_step: how far τ moves for η = 1, in widths.
      initial_step_size: the first η, in widths.
      targeted: look for the wanted class instead of for any other.

    Returns:
      AttackResult: the sparsest adversarial point met, the image itself where there was none (``found`` false) or where the
      image is adversarial already; ``loss`` [num_steps, B] is the negative logit margin of the label before each step.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0], [2.0, 0.0]]) - jnp.array([[3.0, 0.0]])
      >>> result = sigma_zero(linear, None, jnp.full((1, 3), 0.5), jnp.array([0]), num_steps=100)
      >>> jnp.sum(result.images != 0.5), result.found  # one feature alone can take away at most 2 of the margin of 1.5
      (Array(1, dtype=int32), Array([ True], dtype=bool))

    References:
      Cinà et al. 2025, "σ-zero: Gradient-based Optimization of ℓ0-norm Adversarial Examples", algorithm 1. As in adv-lib, τ
      moves by the η of the next step.
    """
    _check(num_steps, sigma, initial_threshold, threshold_step, initial_step_size)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    adam = optax.scale_by_adam()
    width = _width(images, bounds)
    sign = -1 if targeted else 1

    def judge(current: Array) -> tuple[Array, Array]:
        logits = logits_fn(current)
        return margin_loss(logits, labels), successful(logits, labels, targeted=targeted)

    def value(delta: Array) -> tuple[Array, tuple[Array, Array]]:
        losses, hit = judge(images + width * delta)
        squares = jnp.square(delta)
        features = jnp.sum(squares / (squares + sigma)) / num_features(images)
        return jnp.sum(jnp.maximum(-sign * losses, 0)) + features, (losses, hit)

    def eta(step: Array) -> Array:
        return cosine(step, num_steps, initial_step_size, 0.1 * initial_step_size)

    def keep(nearest: Nearest, hit: Array, delta: Array) -> Nearest:
        points = images + width * delta
        return keep_nearer(nearest, hit, points, per_example_norm(points - images, "l0"))

    def iterate(walk: _Walk, step: Array) -> tuple[_Walk, Array]:
        gradient, (losses, hit) = jax.grad(value, has_aux=True)(walk.delta)
        nearest = keep(walk.nearest, hit, walk.delta)
        update, state = adam.update(normalize(gradient, "linf"), walk.state)
        delta = (clip_to_bounds(images + width * (walk.delta - eta(jnp.maximum(step - 1, 0)) * update), bounds) - images) / width
        change = threshold_step * eta(step)
        threshold = jnp.clip(walk.threshold + jnp.where(hit, change, -change), 0, 1)
        delta = jnp.where(jnp.abs(delta) < expand(threshold, delta), 0, delta)
        return _Walk(delta, threshold, state, nearest), losses

    start = jnp.zeros_like(images)
    threshold = per_row(initial_threshold, images)
    walk, losses = jax.lax.scan(iterate, _Walk(start, threshold, adam.init(start), none_yet(images)), jnp.arange(num_steps))
    _, hit = judge(images + width * walk.delta)
    return attack_result(keep(walk.nearest, hit, walk.delta), losses, give)


class _Walk(NamedTuple):
    delta: Array  # [B, ...] in widths of the box
    threshold: Array  # [B]
    state: optax.OptState
    nearest: Nearest


def _width(images: Array, bounds: Bounds) -> Array:
    lower, upper = (jnp.asarray(side, images.dtype) for side in bounds)
    width = upper - lower
    width = jnp.where(jnp.isfinite(width) & (width > 0), width, 1)
    return width if width.ndim == 0 else jnp.broadcast_to(width, images.shape)


def _check(
    num_steps: int,
    sigma: float | Array,
    initial_threshold: float | Array,
    threshold_step: float | Array,
    initial_step_size: float | Array,
) -> None:
    check_steps("num_steps", num_steps)
    check_positive("sigma", sigma)
    check_positive("initial_step_size", initial_step_size)
    for name, number in (("initial_threshold", initial_threshold), ("threshold_step", threshold_step)):
        if isinstance(number, (int, float)) and not 0 <= number <= 1:
            raise SettingError(name, number, "a number in [0, 1], a share of the box's width")
