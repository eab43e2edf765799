"""What the networks share: input normalisation, BatchNorm with torch's settings, and the paper's initialisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.types import Array

glorot = nn.initializers.glorot_uniform()  # Keras' default, with which the paper's networks were trained
kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")  # the usual choice for residual networks


BATCH_NORM_EPSILON = 1e-5


def check_pictures(images: Array) -> None:
    """Refuses what is no pictures [B, H, W, C]: a convolution would read the rows of channels-first pictures as channels.

    Raises:
      SettingError: another number of axes, or a second axis of 1 or 3 where the last is neither.

    Example:
      >>> import jax.numpy as jnp
      >>> check_pictures(jnp.ones((2, 3, 32, 32)))
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: images = [2, 3, 32, 32]: expected pictures [B, H, W, C]; jnp.moveaxis(images, 1, -1) makes them
    """
    shape = list(images.shape)
    if len(shape) != 4:
        one = "; images[..., None] has one channel" if len(shape) == 3 else ""
        raise SettingError("images", shape, f"pictures [B, H, W, C]{one}")
    if shape[1] in (1, 3) and shape[3] not in (1, 3):
        raise SettingError("images", shape, "pictures [B, H, W, C]; jnp.moveaxis(images, 1, -1) makes them")


def normalize_pixels(images: Array, mean: Sequence[float] | None, std: Sequence[float] | None) -> Array:
    """(images − mean) / std per channel, inside the network, so that ε stays in pixel units.

    Args:
      images: [B, H, W, C].
      mean: one number per channel, or None for 0.
      std: one positive number per channel, or None for 1.

    Returns:
      [B, H, W, C].

    Raises:
      SettingError: not one number per channel, or a std that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> normalize_pixels(jnp.ones((1, 1, 1, 2)), (0.5, 0.0), (0.25, 1.0))[0, 0, 0]
      Array([2., 1.], dtype=float32)
    """
    if std is not None and any(value <= 0 for value in std):
        raise SettingError("std", tuple(std), "positive numbers")
    if mean is not None:
        images = images - _per_channel("mean", mean, images)
    return images if std is None else images / _per_channel("std", std, images)


def _per_channel(name: str, values: Sequence[float], images: Array) -> Array:
    if len(values) != images.shape[-1]:
        raise SettingError(name, tuple(values), f"one number for each of {images.shape[-1]} channels")
    return jnp.asarray(values, images.dtype).reshape((1,) * (images.ndim - 1) + (-1,))


def batch_norm(
    train: bool, axis_name: str | None, dtype: Any = None, name: str | None = None, *, affine: bool = True
) -> nn.BatchNorm:
    """BatchNorm with torch's settings (ε 1e-5, running statistics ← 0.9·old + 0.1·new), statistics in float32.

    Under ``jax.pmap`` or ``jax.shard_map`` give ``axis_name``, so that the statistics are those of the whole batch; under ``jit``
    with a sharded batch they are anyway. The running variance is the biased one (torch keeps the unbiased).

    Args:
      train: use the batch's statistics and move the running ones.
      axis_name: of the mapped axis that the batch is split over, or None.
      dtype: of the result, default that of the input.
      name: of the layer.
      affine: with a scale and a bias to train; else they are 1 and 0, and no parameters.

    Returns:
      A Linen module.

    Example:
      >>> batch_norm(False, None).epsilon
      1e-05
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=BATCH_NORM_EPSILON,
        use_scale=affine,
        use_bias=affine,
        axis_name=axis_name,
        dtype=dtype,
        name=name,
    )


def check_widths(widths: Mapping[str, int] | None, layers: Sequence[str]) -> dict[str, int]:
    """The width of each layer that was given one, by its path, as compaction leaves a network: ``{"block1/conv1": 11, ...}``.

    Raises:
      SettingError: a layer that the network does not have, or a width that is no positive whole number.

    Example:
      >>> check_widths(None, ("fc1",)), check_widths({"fc1": 3}, ("fc1", "fc2"))
      ({}, {'fc1': 3})
    """
    found = dict(widths or {})
    for layer, width in found.items():
        if layer not in layers:
            raise SettingError("widths", layer, f"layers of the network: {', '.join(layers)}")
        if not isinstance(width, int) or width < 1:
            raise SettingError(f"widths[{layer!r}]", width, "a positive integer")
    return found


def flatten(images: Array) -> Array:
    """[B, ...] to [B, D].

    Example:
      >>> import jax.numpy as jnp
      >>> flatten(jnp.ones((2, 3, 4, 5))).shape
      (2, 60)
    """
    return images.reshape(images.shape[0], -1)
