"""The moves of APGD in the L1 ball: steps along few features, as many as the best point so far suggests."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.per_example import expand, num_features
from bap_jax.mathematics.projections import clip_to_bounds, project_l1_ball_in_box
from bap_jax.mathematics.top_k import among_largest
from bap_jax.types import Array, Bounds

_FIRST_DENSITY, _THINNING = 0.2, 1.5  # of a random start; how much fewer features than the best point has are moved
_SPARSER, _SLOWER, _SLOWEST = 0.95, 1.5, 10.0


class SparsePace(NamedTuple):
    """How far the next step goes, and along how many features."""

    step: Array  # [B] η
    density: Array  # [B] q, the share of the features that a step moves
    support: Array  # [B] s_old, ‖x_best − x₀‖₀ at the last checkpoint


def sparse_start(point: Array, images: Array, radius: Array, *, given: bool) -> SparsePace:
    """The pace at a start: η = ε; q = s/(1.5·D), s_old = s = ‖x − x₀‖₀ where the start was given, else q = 0.2, s_old = D.

    Args:
      point: [B, ...] the start.
      images: [B, ...] x₀.
      radius: [B] ε.
      given: whether somebody chose the start, or it is random.

    Returns:
      SparsePace.

    Example:
      >>> import jax.numpy as jnp
      >>> sparse_start(jnp.eye(2, 3), jnp.zeros((2, 3)), jnp.ones(2), given=True).support
      Array([1., 1.], dtype=float32)
    """
    size = num_features(images)
    if not given:
        return SparsePace(radius, jnp.full_like(radius, _FIRST_DENSITY), jnp.full_like(radius, size))
    support = per_example_norm(point - images, "l0")
    return SparsePace(radius, support / (_THINNING * size), support)


def sparse_step(current: Array, gradient: Array, pace: SparsePace, images: Array, radius: Array, bounds: Bounds) -> Array:
    """x ← P(x + η·s/‖s‖₁), s the signs of the largest |g_i|, P the projection on the L1 ball and the box at once.

    The largest: those not below the ascending-sorted |g| at index clamp(⌊(1 − q)·D⌋, 0, D − 1). As published, a best point of two
    features is moved along two again: a perturbation of one feature is not found from there.

    Args:
      current: [B, ...] x.
      gradient: [B, ...] g; a row of zeros stays where it is.
      pace: η and q.
      images: [B, ...] x₀, the ball's centre.
      radius: [B] ε.
      bounds: the box.

    Returns:
      [B, ...].

    Example:
      >>> import jax.numpy as jnp
      >>> pace = SparsePace(jnp.ones(1), jnp.full(1, 0.3), jnp.ones(1))
      >>> sparse_step(jnp.zeros((1, 3)), jnp.array([[1.0, 3.0, -2.0]]), pace, jnp.zeros((1, 3)), jnp.ones(1), Bounds())
      Array([[0., 1., 0.]], dtype=float32)

    References:
      Croce and Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", section 3.
    """
    size = num_features(images)
    below = jnp.clip(jnp.floor((1 - pace.density) * size), 0, size - 1).astype(jnp.int32)
    largest = among_largest(jnp.abs(gradient).reshape(gradient.shape[0], -1), size - below).reshape(gradient.shape)
    signs = jnp.where(largest, jnp.sign(gradient), 0)
    moved = current + expand(pace.step / (per_example_norm(signs, "l1") + 1e-10), images) * signs
    return clip_to_bounds(images + project_l1_ball_in_box(moved - images, images, radius, bounds), bounds)


def sparse_checkpoint(pace: SparsePace, best: Array, images: Array, radius: Array) -> tuple[SparsePace, Array]:
    """The pace after a checkpoint, and which rows go on from their best point.

    s = ‖x_best − x₀‖₀; q ← s/(1.5·D). Where s < 0.95·s_old: η ← ε, and on from x_best; elsewhere η ← max(η/1.5, ε/10).

    Args:
      pace: the pace so far.
      best: [B, ...] the point of the best objective.
      images: [B, ...] x₀.
      radius: [B] ε.

    Returns:
      (SparsePace, [B] bool).

    Example:
      >>> import jax.numpy as jnp
      >>> pace = SparsePace(jnp.full(2, 0.3), jnp.full(2, 0.2), jnp.full(2, 3.0))
      >>> sparse_checkpoint(pace, jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), jnp.zeros((2, 3)), jnp.ones(2))[1]
      Array([ True, False], dtype=bool)
    """
    support = per_example_norm(best - images, "l0")
    sparser = support < _SPARSER * pace.support
    step = jnp.where(sparser, radius, jnp.maximum(pace.step / _SLOWER, radius / _SLOWEST))
    return SparsePace(step, support / (_THINNING * num_features(images)), support), sparser
