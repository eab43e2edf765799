"""Attacks limited to a region: a box per image that leaves no room outside of it."""

from __future__ import annotations

import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, Bounds


def limit_to_region(region: Array | None, images: Array, bounds: Bounds) -> tuple[Array | None, Bounds]:
    """The region as a mask like the images, and the box in which only features of the region can change.

    Args:
      region: bool, True where a feature may change, with as many axes as ``images``, each as long or of length 1; or None for
        everywhere.
      images: [B, ...].
      bounds: the box of all images.

    Returns:
      (mask, bounds): the mask [B, ...], or None; the sides of the bounds [B, ...], or as they were.

    Raises:
      SettingError: a region that is no such mask.

    Example:
      >>> import jax.numpy as jnp
      >>> mask, box = limit_to_region(jnp.array([[True, False]]), jnp.array([[0.5, 0.25]]), Bounds())
      >>> box.lower, box.upper
      (Array([[0.  , 0.25]], dtype=float32), Array([[1.  , 0.25]], dtype=float32))
    """
    if region is None:
        return None, bounds
    shape, dtype = jnp.shape(region), getattr(region, "dtype", None)
    fits = len(shape) == images.ndim and all(side in (1, whole) for side, whole in zip(shape, images.shape, strict=True))
    if dtype != jnp.bool_ or not fits:
        raise SettingError("region", f"{dtype}{list(shape)}", f"bool that broadcasts to {list(images.shape)}, one axis for each")
    mask = jnp.broadcast_to(region, images.shape)
    lower, upper = (clip_to_bounds(jnp.full_like(images, end), bounds) for end in (-jnp.inf, jnp.inf))
    return mask, Bounds(jnp.where(mask, lower, images), jnp.where(mask, upper, images))
