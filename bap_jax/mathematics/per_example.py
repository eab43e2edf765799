"""One value per row of a batch: broadcast against the batch, and averaged over the rows that are no padding."""

from __future__ import annotations

import math

import chex
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.types import Array


def expand(values: float | Array, like: Array) -> Array:
    """Give a scalar or one value per example the rank of a batch, so that the two broadcast without surprises.

    Args:
      values: a scalar, or [B].
      like: [B, ...].

    Returns:
      A scalar, or [B, 1, ..., 1], of ``like``'s dtype.

    Raises:
      SettingError: any other shape.

    Example:
      >>> import jax.numpy as jnp
      >>> expand(jnp.array([0.1, 0.2]), jnp.zeros((2, 8, 8, 1))).shape
      (2, 1, 1, 1)
    """
    array = jnp.asarray(values, like.dtype)
    if array.ndim == 0:
        return array
    if array.shape != like.shape[:1]:
        raise SettingError("values", array.shape, f"a scalar or one value per example, shape {like.shape[:1]}")
    return array.reshape(-1, *(1,) * (like.ndim - 1))


def choose(condition: Array, chosen: Array, other: Array) -> Array:
    """Take whole rows of ``chosen`` where the condition holds, else of ``other``.

    Args:
      condition: [B] bool.
      chosen: [B, ...].
      other: [B, ...].

    Returns:
      [B, ...].

    Example:
      >>> import jax.numpy as jnp
      >>> choose(jnp.array([True, False]), jnp.ones((2, 2)), jnp.zeros((2, 2)))
      Array([[1., 1.],
             [0., 0.]], dtype=float32)
    """
    chex.assert_equal_shape([chosen, other])
    chex.assert_shape(condition, chosen.shape[:1])
    return jnp.where(condition.reshape(-1, *(1,) * (chosen.ndim - 1)), chosen, other)


def num_features(images: Array) -> int:
    """The number of features D of one example of a batch [B, ...].

    Example:
      >>> import jax.numpy as jnp
      >>> num_features(jnp.zeros((5, 8, 8, 3)))
      192
    """
    return math.prod(images.shape[1:])


def mean_of_real(values: Array, weight: Array) -> Array:
    """The mean over rows of positive weight, each counting alike; 0 where there is none.

    Args:
      values: [B].
      weight: [B], 0 for padding.

    Returns:
      A scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> float(mean_of_real(jnp.array([1.0, 3.0, 99.0]), jnp.array([1.0, 1.0, 0.0])))
      2.0
    """
    chex.assert_equal_shape([values, weight])
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

    Example:
      >>> import jax.numpy as jnp
      >>> float(quantile_of_real(jnp.array([1.0, 3.0, 99.0]), jnp.array([1.0, 1.0, 0.0]), 0.5))
      2.0
    """
    chex.assert_equal_shape([values, weight])
    real = weight > 0
    found = jnp.nanquantile(jnp.where(real, values, jnp.nan), jnp.asarray(level))
    return jnp.where(jnp.any(real), found, 0.0).astype(jnp.float32)
