"""The shortest way from a point to a plane that does not leave the box."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.mathematics.top_k import bits_of, highest
from bap_jax.types import Array, Bounds, Norm

_NEWTON_STEPS = 12
_NEGLIGIBLE = 1e-8  # of the largest |w|: features with less do not move


def step_to_plane(points: Array, normals: Array, residuals: Array, norm: Norm, bounds: Bounds) -> Array:
    """The shortest δ that takes each point x to its plane without leaving the box: ⟨w, δ⟩ = −c, lower ≤ x + δ ≤ upper.

    The plane is {x' : ⟨w, x'⟩ = b}, given by the residual c = ⟨w, x⟩ − b at the point; a linearised function of value f and
    gradient w at x is zero on the plane with c = f. With room_i the way from x_i to the wall in direction −sgn(c·w_i), feature i
    moves by u_i ≤ room_i in that direction, so that Σ|w_i|·u_i = |c|. ``linf``: u_i = min(λ, room_i); ``l2``: u_i = min(λ·|w_i|,
    room_i); ``l1``: features in order of falling |w_i| go to their walls, the last of them only as far as is needed, and equal
    |w_i| share what is left. Where the whole box lies on one side of the plane, every feature goes to its wall.

    λ is the root of a concave, piecewise linear function, found by Newton's method from λ = 0: each step solves one piece
    exactly. L1's last |w_i| is found by its bits. There is no sort.

    Args:
      points: [B, ...] inside ``bounds``.
      normals: [B, ...] the w; features with |w_i| < 1e-8·max|w| do not move, none does where w is zero.
      residuals: [B] the c.
      norm: ``linf``, ``l2`` or ``l1``.
      bounds: the box; each side a scalar or an array that broadcasts against one image. A side may be infinite.

    Returns:
      [B, ...] δ; ``points`` plus it is inside the box up to rounding.

    Raises:
      SettingError: another norm.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.types import Bounds
      >>> points, normals = jnp.array([[0.5, 0.5, 0.5]]), jnp.array([[4.0, -2.0, 1.0]])
      >>> step_to_plane(points, normals, jnp.array([2.5]), "l1", Bounds())
      Array([[-0.5 ,  0.25, -0.  ]], dtype=float32)

    References:
      Croce and Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack", eqs. 3 and 8 (the
      problem; solved there by sorting).
    """
    if norm not in ("linf", "l2", "l1"):
        raise SettingError("norm", norm, "one of linf, l2, l1")
    lower, upper = (clip_to_bounds(jnp.full_like(points, end), bounds) for end in (-jnp.inf, jnp.inf))
    away = jnp.sign(normals) * jnp.sign(residuals).reshape(-1, *(1,) * (points.ndim - 1))  # δ goes against it
    room = jnp.maximum(jnp.where(away > 0, points - lower, upper - points), 0).reshape(points.shape[0], -1)

    slopes = jnp.abs(normals).reshape(room.shape)
    largest = jnp.max(slopes, axis=1)
    scale = jnp.where(largest > 0, largest, 1)
    slopes = slopes / scale[:, None]  # [B, D] in [0, 1]
    needed = jnp.where(largest > 0, jnp.abs(residuals) / scale, 0)
    room = jnp.where(slopes > _NEGLIGIBLE, room, 0)
    gains = jnp.minimum(slopes * room, needed[:, None])  # what each feature can do about c; one that can do it all has no wall
    if norm == "l1":
        moves = _largest_slopes_first(slopes, gains, needed)
    else:
        rates = slopes if norm == "linf" else jnp.square(slopes)
        multiplier = _multiplier(rates, gains, needed)[:, None]
        moves = multiplier if norm == "linf" else multiplier * slopes
    beyond = jnp.sum(gains, axis=1) < needed
    moves = jnp.where(beyond[:, None], room, jnp.minimum(moves, room))
    return -away * moves.reshape(points.shape)


def _multiplier(rates: Array, gains: Array, needed: Array) -> Array:
    """The λ with Σ min(λ·rate_i, gain_i) = needed, [B]; where there is none, one so large that every gain is reached."""

    def newton(_: int, multiplier: Array) -> Array:
        linear = multiplier[:, None] * rates
        slope = jnp.sum(jnp.where(linear < gains, rates, 0), axis=1)
        lacking = needed - jnp.sum(jnp.minimum(linear, gains), axis=1)
        return jnp.maximum(multiplier + lacking / jnp.where(slope > 0, slope, jnp.inf), 0)

    return jax.lax.fori_loop(0, _NEWTON_STEPS, newton, jnp.zeros_like(needed))


def _largest_slopes_first(slopes: Array, gains: Array, needed: Array) -> Array:
    """Moves [B, D] that spend ``needed`` on the features of the largest slopes, whole gains on all but the last ones."""
    bits = bits_of(slopes)
    enough = lambda trial: jnp.sum(jnp.where(bits >= trial[:, None], gains, 0), axis=1) >= needed  # noqa: E731
    threshold = highest(enough, bits[:, 0] * 0, 30)[:, None]  # slopes ≤ 1: bit 30 is never set
    whole = jnp.where(bits > threshold, gains, 0)
    last = jnp.where(bits == threshold, gains, 0)
    total = jnp.sum(last, axis=1)
    share = jnp.clip((needed - jnp.sum(whole, axis=1)) / jnp.where(total > 0, total, 1), 0, 1)
    return (whole + share[:, None] * last) / jnp.where(slopes > _NEGLIGIBLE, slopes, 1)
