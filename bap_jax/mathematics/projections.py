"""Projections on norm balls and on the box that images live in."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.inputs import concrete
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.per_example import expand
from bap_jax.types import Array, Bounds, Norm

_HALVINGS, _NEWTON_STEPS = 16, 3
_BOX_HALVINGS = 20


def project_ball(delta: Array, epsilon: float | Array, norm: Norm) -> Array:
    """The nearest point (in L2) of each example's ball {δ : ‖δ‖ ≤ ε}.

    ``linf``: clip to ±ε. ``l2``, ``rms``: δ·min(1, ε/‖δ‖); points inside stay where they are. ``l1``: soft threshold
    sgn(δ)·max(|δ| − α, 0), with α = 0 inside the ball and else the α that brings the norm to ε.

    Args:
      delta: [B, ...] perturbations.
      epsilon: radius ≥ 0, a scalar or [B], in the norm's units; may be traced.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.

    Returns:
      [B, ...]; ‖δ‖ ≤ ε up to rounding. With ε = 0 exactly zero.

    Raises:
      SettingError: a norm that has no projection here, an ε that is a negative Python number or of a wrong shape.

    Example:
      >>> import jax.numpy as jnp
      >>> project_ball(jnp.array([[3.0, -1.0], [0.25, 0.25]]), 1.0, "l1")
      Array([[1.  , 0.  ],
             [0.25, 0.25]], dtype=float32)

    References:
      Duchi et al. 2008, "Efficient Projections onto the l1-Ball" (the threshold; here found without sorting).
    """
    check_radius("epsilon", epsilon)
    if norm == "linf":
        radius = expand(epsilon, delta)
        return jnp.clip(delta, -radius, radius)
    if norm in ("l2", "rms"):
        return _project_l2(delta, epsilon, norm)
    if norm == "l1":
        return _project_l1(delta, epsilon)
    raise SettingError("norm", norm, "one of linf, l2, l1, rms")


def project_l1_ball_in_box(delta: Array, images: Array, epsilon: float | Array, bounds: Bounds) -> Array:
    """The nearest perturbation (in L2) within the L1 ball *and* the box: of {δ : ‖δ‖₁ ≤ ε, lower ≤ x + δ ≤ upper}.

    δ_i → sgn(δ_i)·min(room_i, max(|δ_i| − α, 0)), room_i = upper_i − x_i where δ_i > 0 and x_i − lower_i elsewhere, with α = 0 if
    that has norm ≤ ε and else the α that brings the norm to ε. The ball's projection followed by the box's is another, shorter
    perturbation: it gives away what the walls cut off.

    The norm falls in α but is not convex (walls), so α is bracketed by halving, then interpolated: exactly, unless a feature
    meets its threshold or wall within 2⁻²⁰ of the largest |δ|.

    Args:
      delta: [B, ...] perturbations.
      images: [B, ...] the images they belong to, inside ``bounds``.
      epsilon: radius ≥ 0, a scalar or [B], in input units; may be traced.
      bounds: the box; each side a scalar or an array that broadcasts against one image. A side may be infinite.

    Returns:
      [B, ...]; the norm is at most ε and ``images`` plus it inside the box, up to rounding. With ε = 0 exactly zero.

    Raises:
      SettingError: an ε that is a negative Python number or of a wrong shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.types import Bounds
      >>> project_l1_ball_in_box(jnp.array([[3.0, 1.0]]), jnp.array([[0.5, 0.0]]), 1.0, Bounds())  # the ball's: (1, 0)
      Array([[0.5, 0.5]], dtype=float32)

    References:
      Croce and Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", Proposition 2.1 (the
      projection; here found without sorting).
    """
    check_radius("epsilon", epsilon)
    expand(epsilon, delta)  # refuses other shapes
    lower, upper = (clip_to_bounds(jnp.full_like(images, end), bounds) for end in (-jnp.inf, jnp.inf))
    room = jnp.maximum(jnp.where(delta > 0, upper - images, images - lower), 0).reshape(delta.shape[0], -1)
    magnitude = jnp.abs(delta).reshape(delta.shape[0], -1)  # [B, D]
    radius = jnp.broadcast_to(jnp.asarray(epsilon, delta.dtype), delta.shape[:1])

    def excess(alpha: Array) -> Array:
        return jnp.sum(jnp.clip(magnitude - alpha[:, None], 0, room), axis=1) - radius

    def halve(_: int, bracket: tuple[Array, ...]) -> tuple[Array, ...]:
        low, above, high, below = bracket
        middle = (low + high) / 2
        value = excess(middle)
        up = value > 0
        return jnp.where(up, middle, low), jnp.where(up, value, above), jnp.where(up, high, middle), jnp.where(up, below, value)

    largest = jnp.max(magnitude, axis=1)
    at_zero = excess(jnp.zeros_like(largest))
    low, above, high, below = jax.lax.fori_loop(0, _BOX_HALVINGS, halve, (jnp.zeros_like(largest), at_zero, largest, -radius))
    alpha = low + (high - low) * (above / jnp.where(above > below, above - below, 1))
    alpha = jnp.where(at_zero > 0, alpha, 0)
    alpha = jnp.where(radius > 0, alpha, largest)  # exactly zero at ε = 0
    return jnp.sign(delta) * jnp.clip(magnitude - alpha[:, None], 0, room).reshape(delta.shape)


def clip_to_bounds(images: Array, bounds: Bounds) -> Array:
    """The nearest point of the box: every feature clipped to its bounds.

    Args:
      images: [B, ...].
      bounds: the box; each side a scalar or an array that broadcasts against one image.

    Returns:
      [B, ...].

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.types import Bounds
      >>> clip_to_bounds(jnp.array([[-0.5, 0.5, 1.5]]), Bounds(0.0, 1.0))
      Array([[0. , 0.5, 1. ]], dtype=float32)
    """
    lower, upper = (jnp.asarray(side, images.dtype) for side in bounds)
    # An array side is broadcast in the open: rank promotion may be forbidden where this runs.
    sides = (side if side.ndim == 0 else jnp.broadcast_to(side, images.shape) for side in (lower, upper))
    return jnp.clip(images, *sides)


def check_radius(name: str, value: object) -> None:
    """Raise SettingError for a radius that is negative or NaN, or an infinite Python number; traced values and None pass."""
    if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
        raise SettingError(name, value, "a finite number ≥ 0")
    numbers = None if value is None else concrete(value)
    if numbers is not None and not np.all(numbers >= 0):
        raise SettingError(name, float(np.min(numbers)), "numbers ≥ 0")


def _project_l2(delta: Array, epsilon: float | Array, norm: Norm) -> Array:
    size = expand(per_example_norm(delta, norm), delta)
    radius = expand(epsilon, delta)
    outside = size > radius
    return jnp.where(outside, delta * (radius / jnp.where(outside, size, 1)), delta)


def _project_l1(delta: Array, epsilon: float | Array) -> Array:
    magnitude = jnp.abs(delta).reshape(delta.shape[0], -1)  # [B, D]
    radius = jnp.broadcast_to(jnp.asarray(epsilon, delta.dtype), delta.shape[:1])

    def excess(alpha: Array) -> Array:  # Σ max(|δ| − α, 0) − ε: convex, falling in α
        return jnp.sum(jnp.maximum(magnitude - alpha[:, None], 0), axis=1) - radius

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        above = excess(middle) > 0
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    def newton(_: int, alpha: Array) -> Array:
        # On the set of features above α the root is exact; from below, each step comes nearer and never passes it.
        active = magnitude > alpha[:, None]
        count = jnp.sum(active, axis=1)
        root = (jnp.sum(jnp.where(active, magnitude, 0), axis=1) - radius) / jnp.maximum(count, 1)
        return jnp.maximum(alpha, root)

    largest = jnp.max(magnitude, axis=1)
    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(largest), largest))
    alpha = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, low)
    alpha = jnp.where(excess(jnp.zeros_like(alpha)) > 0, alpha, 0)
    alpha = jnp.where(radius > 0, alpha, largest)  # exactly zero at ε = 0
    threshold = expand(alpha, delta)
    return delta - jnp.clip(delta, -threshold, threshold)


def uniform_in_ball(key: Array, shape: tuple[int, ...], norm: Norm, dtype: jnp.dtype = jnp.float32) -> Array:
    """One point drawn uniformly from the unit ball.

    ``linf``: independent uniform features. ``l2``, ``rms``: a Gaussian direction, radius U^(1/D). ``l1``: signed exponentials
    over the sum of D + 1 of them (a uniform point of the simplex of dimension D).

    Args:
      key: one typed key.
      shape: the shape of one example.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      dtype: of the result.

    Returns:
      [...] a point with ‖δ‖ ≤ 1.

    Raises:
      SettingError: ``l0`` or an unknown norm.

    Example:
      >>> import jax
      >>> point = uniform_in_ball(jax.random.key(0), (8, 8, 1), "l1")
      >>> point.shape, bool(abs(point).sum() <= 1)
      ((8, 8, 1), True)

    References:
      Barthe et al. 2005, "A probabilistic approach to the geometry of the l_p^n-ball".
    """
    direction_key, radius_key, sign_key = jax.random.split(key, 3)
    size = math.prod(shape)
    if norm == "linf":
        return jax.random.uniform(direction_key, shape, dtype, -1, 1)
    if norm in ("l2", "rms"):
        normal = jax.random.normal(direction_key, (1, size), dtype)
        radius = jax.random.uniform(radius_key, (), dtype) ** (1 / size) * (math.sqrt(size) if norm == "rms" else 1)
        return (normal / per_example_norm(normal, "l2")[:, None] * radius).reshape(shape)
    if norm == "l1":
        shares = jax.random.exponential(direction_key, (size,), dtype)
        total = jnp.sum(shares) + jax.random.exponential(radius_key, (), dtype)
        return (jax.random.rademacher(sign_key, (size,), dtype) * shares / total).reshape(shape)
    raise SettingError("norm", norm, "one of linf, l2, l1, rms")
