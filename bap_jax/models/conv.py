"""Layers of convolution, and pooling that stays fast inside an attack loop on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.convolution import ConvKind, Padding, fast_conv
from bap_jax.types import Array


def conv_function(kind: ConvKind) -> Callable[..., Array] | None:
    """What to give to ``nn.Conv(conv_general_dilated=...)``: None is Linen's own.

    Example:
      >>> conv_function("plain") is None, conv_function("fast") is fast_conv
      (True, True)
    """
    if kind not in ("fast", "plain"):
        raise SettingError("conv", kind, "'fast' or 'plain'")
    return fast_conv if kind == "fast" else None


def conv_layer(
    features: int, size: int, *, conv: ConvKind, strides: int = 1, padding: Padding = "SAME", **options: Any
) -> nn.Conv:
    """A Linen convolution with a square kernel, in the wanted form.

    Args:
      features: output channels.
      size: height and width of the kernel.
      conv: ``"fast"`` or ``"plain"``.
      strides: the same for both axes.
      padding: as for :func:`fast_conv`.
      **options: of ``nn.Conv``.

    Returns:
      A Linen module, to be called within another one's ``@nn.compact`` method.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = conv_layer(4, 3, conv="fast", strides=2)
      >>> jax.eval_shape(layer.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 1)))[0].shape
      (2, 4, 4, 4)
    """
    return nn.Conv(features, (size, size), (strides, strides), padding, conv_general_dilated=conv_function(conv), **options)


def max_pool(images: Array) -> Array:
    """The largest of each 2×2 block; an odd last row or column is left out (VALID).

    Written as a maximum over a reshaped array: ``reduce_window`` and its gradient ``select_and_scatter`` are slow on a CPU. Where
    several entries of a block share the maximum, the gradient is shared too.

    Args:
      images: [B, H, W, C], H and W ≥ 2.

    Returns:
      [B, ⌊H/2⌋, ⌊W/2⌋, C].

    Raises:
      SettingError: an axis too short to pool.

    Example:
      >>> import jax.numpy as jnp
      >>> max_pool(jnp.arange(15.0).reshape(1, 3, 5, 1))[0, :, :, 0]
      Array([[6., 8.]], dtype=float32)
    """
    return jnp.max(_blocks(images), axis=(2, 4))


def mean_pool(images: Array) -> Array:
    """The mean of each 2×2 block; an odd last row or column is left out (VALID).

    Args:
      images: [B, H, W, C], H and W ≥ 2.

    Returns:
      [B, ⌊H/2⌋, ⌊W/2⌋, C].

    Raises:
      SettingError: an axis too short to pool.

    Example:
      >>> import jax.numpy as jnp
      >>> mean_pool(jnp.arange(15.0).reshape(1, 3, 5, 1))[0, :, :, 0]
      Array([[3., 5.]], dtype=float32)
    """
    return jnp.mean(_blocks(images), axis=(2, 4))


def _blocks(images: Array) -> Array:
    """[B, H, W, C] to [B, H/2, 2, W/2, 2, C]."""
    batch, height, width, channels = images.shape
    if height < 2 or width < 2:
        raise SettingError("images", images.shape, "a height and width of at least 2 to pool")
    return images[:, : height // 2 * 2, : width // 2 * 2].reshape(batch, height // 2, 2, width // 2, 2, channels)


def max_pool_3x3(images: Array) -> Array:
    """The largest of each 3×3 window, in steps of two, with a border of one: what follows the ImageNet stem of a ResNet.

    A maximum over nine slices, for the reason given at :func:`max_pool`.

    Args:
      images: [B, H, W, C].

    Returns:
      [B, ⌈H/2⌉, ⌈W/2⌉, C].

    Example:
      >>> import jax.numpy as jnp
      >>> max_pool_3x3(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
      Array([[ 5.,  7.],
             [13., 15.]], dtype=float32)
    """
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    slices = (padded[:, top : top + height : 2, left : left + width : 2] for top in range(3) for left in range(3))
    return reduce(jnp.maximum, slices)


def average_pool(images: Array, side: int) -> Array:
    """The averages of side×side parts of a map; parts overlap where they do not divide it, and repeat where it is smaller.

    Part i of an axis of length n goes from ⌊i·n/side⌋ to ⌈(i + 1)·n/side⌉, as in PyTorch's ``AdaptiveAvgPool2d``.

    Args:
      images: [B, H, W, C].
      side: parts along each axis.

    Returns:
      [B, side, side, C].

    Example:
      >>> import jax.numpy as jnp
      >>> average_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), 2)[0, :, :, 0]
      Array([[2., 3.],
             [5., 6.]], dtype=float32)
    """
    if images.shape[1:3] == (side, side):
        return images
    rows, columns = ([(part * n // side, -((-(part + 1) * n) // side)) for part in range(side)] for n in images.shape[1:3])
    return jnp.stack(
        [jnp.stack([images[:, top:bottom, left:right].mean((1, 2)) for left, right in columns], axis=1) for top, bottom in rows],
        axis=1,
    )
