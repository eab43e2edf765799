"""Statistics of a batch that leave its padding out."""

from __future__ import annotations

import jax.numpy as jnp

from bap_jax.types import Array


def mean_of_real(values: Array, weight: Array) -> Array:
    """The mean over rows of positive weight, each counting alike; 0 where there is none.

    Args:
      values: [B].
      weight: [B], 0 for padding.

    Returns:
      A scalar.

    >>> import jax.numpy as jnp
    >>> float(mean_of_real(jnp.array([1.0, 3.0, 99.0]), jnp.array([1.0, 1.0, 0.0])))
    2.0
    """
    real = weight > 0
    return jnp.sum(jnp.where(real, values, 0.0)) / jnp.maximum(jnp.sum(real), 1)


def quantile_of_real(values: Array, weight: Array, level: float | Array) -> Array:
    """Quantiles over rows of positive weight, linear between them; 0 where there is none.

    Args:
      values: [B].
      weight: [B], 0 for padding.
      level: in [0, 1], a scalar or [Q].

    Returns:
      float32, of the shape of ``level``.

    >>> import jax.numpy as jnp
    >>> float(quantile_of_real(jnp.array([1.0, 3.0, 99.0]), jnp.array([1.0, 1.0, 0.0]), 0.5))
    2.0
    """
    real = weight > 0
    found = jnp.nanquantile(jnp.where(real, values, jnp.nan), jnp.asarray(level))
    return jnp.where(jnp.any(real), found, 0.0).astype(jnp.float32)
