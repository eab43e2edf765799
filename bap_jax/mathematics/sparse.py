"""Projection on few features: the perturbation's largest entries, exactly as many as asked for."""

from __future__ import annotations

import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.top_k import exactly_largest
from bap_jax.types import Array


def project_l0(delta: Array, count: int | Array) -> Array:
    """The nearest point with at most ``count`` features: each example keeps its largest |δ|, the rest becomes zero.

    Of features that tie for the last place those with the lowest index stay, so that never more than ``count`` do (perturbations
    that lie on the walls of a box tie often). Nothing is sorted: the threshold is built bit by bit from counts.

    Args:
      delta: [B, ...] perturbations.
      count: how many features may stay, a scalar or [B], rounded down; may be traced. Below 1 nothing
        stays, from D on everything.

    Returns:
      [B, ...] with ‖δ‖₀ ≤ count.

    Raises:
      SettingError: a count that is neither a scalar nor one per example.

    Example:
      >>> import jax.numpy as jnp
      >>> project_l0(jnp.array([[3.0, -1.0, 2.0], [1.0, 1.0, 1.0]]), jnp.array([1, 2]))
      Array([[3., 0., 0.],
             [1., 1., 0.]], dtype=float32)
    """
    rows = jnp.asarray(count)
    if rows.shape not in ((), delta.shape[:1]):
        raise SettingError("count", rows.shape, f"a scalar or one value per example, shape {delta.shape[:1]}")
    flat = delta.reshape(delta.shape[0], -1)
    whole = jnp.floor(rows) if jnp.issubdtype(rows.dtype, jnp.floating) else rows
    kept = jnp.broadcast_to(jnp.clip(whole, 0, flat.shape[1]).astype(jnp.int32), delta.shape[:1])
    return jnp.where(exactly_largest(jnp.abs(flat), kept), flat, 0).reshape(delta.shape)
