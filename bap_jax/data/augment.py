"""The augmentation of the paper's CIFAR runs: random shifts and horizontal flips, a pure function of one key per row."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.types import Array


def shift_image(image: Array, rows: Array | float, columns: Array | float) -> Array:
    """Move the content of one image up by ``rows`` and left by ``columns`` pixels.

    ``out[i, j] = image[i + rows, j + columns]``, bilinear between pixels; what comes in from outside is the nearest edge pixel.
    Every output lies between the smallest and the largest input pixel.

    Args:
      image: ``[H, W, C]``.
      rows: pixels, any real number; negative moves down.
      columns: pixels; negative moves right.

    Returns:
      ``[H, W, C]``.

    Example:
      >>> import jax.numpy as jnp
      >>> shift_image(jnp.arange(3.0).reshape(1, 3, 1), 0, 1)[0, :, 0].tolist()
      [1.0, 2.0, 2.0]
      >>> shift_image(jnp.arange(3.0).reshape(1, 3, 1), 0, -0.5)[0, :, 0].tolist()
      [0.0, 0.5, 1.5]
    """
    return _shift_axis(_shift_axis(image, rows, 0), columns, 1)


def _shift_axis(image: Array, amount: Array | float, axis: int) -> Array:
    # All pixels move alike, so two neighbouring windows of the edge-padded image do; a gather per pixel is 20
    # times slower on a CPU.
    size = image.shape[axis]
    amount = jnp.clip(jnp.asarray(amount, image.dtype), -size, size)
    whole = jnp.floor(amount)
    padding = [(size, size + 1) if a == axis else (0, 0) for a in range(image.ndim)]
    window = jax.lax.dynamic_slice_in_dim(jnp.pad(image, padding, mode="edge"), whole.astype(jnp.int32) + size, size + 1, axis)
    low = jax.lax.slice_in_dim(window, 0, size, axis=axis)
    high = jax.lax.slice_in_dim(window, 1, size + 1, axis=axis)
    # Rounding must not carry a pixel over the edge of its bounds.
    return jnp.clip(low + (amount - whole) * (high - low), jnp.minimum(low, high), jnp.maximum(low, high))


def augment(keys: Array, images: Array, *, shift: float = 0.1, flip: bool = True) -> Array:
    """Shift each image at random, then mirror it left to right with probability one half.

    Both shifts are uniform in ``±shift`` times height and width, in fractions of pixels (bilinear), and the border is filled
    with the nearest pixel: what Keras' ``ImageDataGenerator(width_shift_range, height_shift_range, horizontal_flip)`` does by
    default. A row's result depends on its own key alone, so sharding and padding change nothing.

    Args:
      keys: ``[B]`` typed keys.
      images: ``[B, H, W, C]`` floats.
      shift: the largest shift as a part of height and width, in [0, 1).
      flip: mirror half of the images.

    Returns:
      ``[B, H, W, C]``, inside the bounds that the images were in.

    Raises:
      SettingError: a shift outside [0, 1), images that are not floats of rank 4, a number of keys other than B.

    Example:
      >>> import jax
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> augment(keys, jax.numpy.ones((2, 8, 8, 1))).shape
      (2, 8, 8, 1)

    References:
      Keras ``ImageDataGenerator``: ``fill_mode="nearest"``, ``interpolation_order=1``.
    """
    if not 0.0 <= shift < 1.0:
        raise SettingError("shift", shift, "a part of height and width in [0, 1)")
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise SettingError("images", f"{images.dtype}{list(images.shape)}", "floats of shape [B, H, W, C]")
    if keys.shape != images.shape[:1]:
        raise SettingError("keys", list(keys.shape), f"one typed key per image, {list(images.shape[:1])}")

    def one(key: Array, image: Array) -> Array:
        shift_key, flip_key = jax.random.split(key)
        if shift:
            part = jax.random.uniform(shift_key, (2,), image.dtype, -shift, shift)
            image = shift_image(image, part[0] * image.shape[0], part[1] * image.shape[1])
        if flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        return image

    return jax.vmap(one)(keys, images)
