"""What minimal-norm attacks share: the nearest adversarial point met so far, and how far there is to go at most."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp

from bap_jax.attacks._inputs import Give
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.per_example import choose
from bap_jax.types import Array, AttackResult, Bounds, Norm


def per_row(value: float | Array, images: Array) -> Array:
    """A scalar or one value per example as [B] of the images' dtype, spread over devices as the images are."""
    return jnp.zeros_like(images, shape=images.shape[:1]) + jnp.asarray(value, images.dtype)


class Nearest(NamedTuple):
    """The nearest adversarial point of every example."""

    images: Array  # [B, ...] the image itself while there is none
    distance: Array  # [B] infinite while there is none


def none_yet(images: Array) -> Nearest:
    """The record before any adversarial point was met."""
    return Nearest(images, per_row(jnp.inf, images))


def keep_nearer(nearest: Nearest, hit: Array, images: Array, distance: Array) -> Nearest:
    """Take over the rows that are adversarial (``hit`` [B]) and nearer than what is on record; a distance that is NaN never is.

    Example:
      >>> import jax.numpy as jnp
      >>> record = none_yet(jnp.zeros((2, 3)))
      >>> keep_nearer(record, jnp.array([True, False]), jnp.ones((2, 3)), jnp.array([1.0, 1.0])).distance
      Array([ 1., inf], dtype=float32)
    """
    nearer = hit & (distance < nearest.distance)
    return Nearest(choose(nearer, images, nearest.images), jnp.where(nearer, distance, nearest.distance))


def attack_result(nearest: Nearest, losses: Array, give: Give) -> AttackResult:
    """The record as an attack's result."""
    return give(nearest.images, jnp.isfinite(nearest.distance), losses)


def farthest(images: Array, bounds: Bounds, norm: Norm) -> Array:
    """The norm of the longest perturbation that stays in the box, ‖max(upper − x, x − lower)‖, [B]; infinite without a box.

    Example:
      >>> import jax.numpy as jnp
      >>> farthest(jnp.array([[0.25, 1.0]]), Bounds(0.0, 1.0), "l1")
      Array([1.75], dtype=float32)
    """
    lower, upper = (jnp.broadcast_to(jnp.asarray(side, images.dtype), images.shape) for side in bounds)
    return per_example_norm(jnp.maximum(upper - images, images - lower), norm)


def cosine(step: Array, num_steps: int, initial: float | Array, final: float | Array) -> Array:
    """Cosine annealing, final + (initial − final)·(1 + cos(π·step/num_steps))/2."""
    return final + (initial - final) * (1 + jnp.cos(math.pi * step / num_steps)) / 2
