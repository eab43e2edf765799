"""Ways from an image to the boundary, one point for every radius: what a margin search walks along."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from bap_jax.attacks import pgd
from bap_jax.attacks._inputs import AnyRadius
from bap_jax.budgets.margin import Way
from bap_jax.mathematics.norms import steepest_direction
from bap_jax.mathematics.objectives import cross_entropy
from bap_jax.mathematics.per_example import expand
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, Bounds, LogitsFn, Norm


def ball_way(
    logits_fn: LogitsFn, images: Array, labels: Array, epsilon_max: Array, *, norm: Norm, num_steps: int = 1, bounds: Bounds
) -> Way:
    """A way through the balls of all radii up to ``epsilon_max``: at each, the point of the ball *and the box* that is worst.

    Worst for the linear network whose gradient is the one at the image: so on a linear network the first misclassified point of
    the way is the nearest one in the box, in every norm. With g the gradient and f the fraction:

    - L-infinity: ``image + clip(step, -f epsilon_max, f epsilon_max)``, every feature moves at the same pace until it meets its
      wall, as in PGD's ball. (On the straight line to the far point each would go at a pace of its own.)
    - L2, RMS: ``clip(image + f epsilon_max g / |g|)`` in the box.
    - L1: the features in the order of their gradients, each up to its wall, until ``f epsilon_max`` is spent.

    With several steps the way leads to where the last one ended: in L-infinity as above, in other norms on a straight line,
    which is what their balls cut from it.

    Args:
      logits_fn: images [B, ...] -> logits [B, K].
      images: [B, ...], inside the bounds.
      labels: [B] int.
      epsilon_max: scalar, in ``norm``.
      norm: ``"linf"``, ``"l2"``, ``"l1"`` or ``"rms"``.
      num_steps: PGD steps.
      bounds: the box of the images.

    Returns:
      Fractions [B] -> points [B, ...], inside the bounds, no farther than that fraction of ``epsilon_max``.

    Example:
      >>> logits_fn = lambda x: x @ jnp.array([[2.0, 0.0], [1.0, 0.0]])
      >>> images, labels, wide = jnp.array([[0.75, 0.0625]]), jnp.array([0]), jnp.float32(1.0)
      >>> for norm in ("linf", "l1"):
      ...     print(ball_way(logits_fn, images, labels, wide, norm=norm, bounds=Bounds())(jnp.array([0.5])).tolist())
      [[0.25, 0.0]]
      [[0.25, 0.0625]]
    """
    if norm == "l1" and num_steps == 1:
        return _greedy_way(_gradient(logits_fn, images, labels), images, epsilon_max, bounds)
    walls = bounds if norm == "linf" or num_steps > 1 else Bounds(-math.inf, math.inf)  # one step is clipped on the way
    far = straight_end(logits_fn, images, labels, epsilon_max, norm=norm, num_steps=num_steps, bounds=walls)

    def way(fraction: Array) -> Array:
        if norm != "linf":
            return clip_to_bounds(images + expand(fraction, images) * (far - images), bounds)
        radius = expand(fraction * epsilon_max, images)
        return images + jnp.clip(far - images, -radius, radius)

    return way


def straight_end(
    logits_fn: LogitsFn, images: Array, labels: Array, epsilon_max: Array, *, norm: Norm, num_steps: int, bounds: Bounds
) -> Array:
    """Where a few steps of PGD at ``epsilon_max``, from the image itself, end: [B, ...]."""
    return pgd(
        AnyRadius(logits_fn),
        None,
        images,
        labels,
        epsilon=epsilon_max,
        norm=norm,
        num_steps=num_steps,
        random_start=False,
        bounds=bounds,
    ).images


def _gradient(logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
    return jax.grad(lambda points: jnp.sum(cross_entropy(logits_fn(points), labels)))(images)


def _greedy_way(gradient: Array, images: Array, epsilon_max: Array, bounds: Bounds) -> Way:
    """In L1: the features in the order of their gradients, each up to its wall, until the radius is spent."""
    signs = steepest_direction(gradient, "linf")
    walls = clip_to_bounds(jnp.where(signs == 0, images, signs * jnp.inf), bounds)
    room = jnp.abs(walls - images).reshape(images.shape[0], -1)  # [B, D]
    order = jnp.argsort(-jnp.abs(gradient).reshape(room.shape), axis=1)
    sorted_room = jnp.take_along_axis(room, order, axis=1)
    spent = jnp.take_along_axis(jnp.cumsum(sorted_room, axis=1) - sorted_room, jnp.argsort(order, axis=1), axis=1)

    def way(fraction: Array) -> Array:
        moved = jnp.clip((fraction * epsilon_max)[:, None] - spent, 0, room).reshape(images.shape)
        return clip_to_bounds(images + signs * moved, bounds)

    return way
