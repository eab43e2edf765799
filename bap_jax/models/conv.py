"""Convolution and pooling that stay fast inside an attack loop on a CPU, and the layers built from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from bap_jax.errors import SettingError
from bap_jax.types import Array

ConvKind = Literal["fast", "plain"]
Padding = str | Sequence[tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


class _Window(NamedTuple):
    """What is static about a convolution; hashable, so that it can be a non-differentiated argument."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    kernel_dilation: tuple[int, int]
    groups: int
    precision: Any
    dtype: Any


def fast_conv(
    images: Array,
    kernel: Array,
    window_strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> Array:
    """Two-dimensional convolution whose gradient with respect to the images is as fast inside a loop as outside.

    Inside ``scan`` and ``fori_loop`` XLA:CPU folds the transpose of the kernel, which the input gradient needs, into the
    convolution itself, and that form takes a path several times slower. Here the backward pass flips and transposes the kernel,
    holds the result behind an optimisation barrier, and runs an ordinary convolution. Values and gradients are those of
    ``lax.conv_general_dilated``.

    Reverse mode, ``jacrev``, ``vmap``, ``jit``, ``scan``, gradients of gradients and ``jax.hessian`` work. Forward mode does not:
    for ``jax.jvp``, ``jax.jacfwd`` and ``jax.linearize`` build the model with ``conv="plain"``. (What is compiled, or linearised,
    is refused by jax, with a TypeError, when it runs.) The arguments are those of ``lax.conv_general_dilated``, so that the
    function can be given to Linen's and NNX's ``Conv(conv_general_dilated=fast_conv)``.

    Args:
      images: [B, H, W, C].
      kernel: [h, w, C / feature_group_count, F].
      window_strides: one number, or one per spatial axis.
      padding: ``"SAME"``, ``"VALID"`` or [(low, high), (low, high)].
      lhs_dilation: must be absent or all ones.
      rhs_dilation: spacing of the kernel's points, default 1.
      dimension_numbers: must be absent or mean NHWC, HWIO, NHWC.
      feature_group_count: number of groups of channels.
      batch_group_count: must be 1.
      precision: as in ``lax.conv_general_dilated``.
      preferred_element_type: as in ``lax.conv_general_dilated``.
      out_sharding: must be absent (it serves meshes with explicit axes).

    Returns:
      [B, H', W', F].

    Raises:
      SettingError: an argument that is not supported, shapes that do not fit, or forward mode.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
      >>> fast_conv(images, kernel, padding="VALID")[0, :, :, 0]
      Array([[9., 9.],
             [9., 9.]], dtype=float32)
      >>> jax.grad(lambda x: fast_conv(x, kernel, padding="VALID").sum())(images)[0, :, :, 0]
      Array([[1., 2., 2., 1.],
             [2., 4., 4., 2.],
             [2., 4., 4., 2.],
             [1., 2., 2., 1.]], dtype=float32)
    """
    if images.ndim != 4 or kernel.ndim != 4:
        raise SettingError(
            "images", f"{images.shape} with a kernel {kernel.shape}", "images [B, H, W, C] and a kernel [h, w, C, F]"
        )
    if images.shape[3] != kernel.shape[2] * feature_group_count:
        expected = f"{kernel.shape[2] * feature_group_count} channels, as the kernel {kernel.shape} takes"
        raise SettingError("images", images.shape, expected)
    if lhs_dilation is not None and any(step != 1 for step in lhs_dilation):
        raise SettingError("lhs_dilation", lhs_dilation, "all ones; use lax.conv_general_dilated for other values")
    if out_sharding is not None:
        raise SettingError("out_sharding", out_sharding, "none; use lax.conv_general_dilated on a mesh with explicit axes")
    if batch_group_count != 1:
        raise SettingError("batch_group_count", batch_group_count, "1; use lax.conv_general_dilated for other values")
    _check_layout(images, kernel, dimension_numbers)
    strides = _pair(window_strides)
    dilation = (1, 1) if rhs_dilation is None else _pair(rhs_dilation)
    pads = _explicit(padding, images.shape[1:3], kernel.shape[:2], strides, dilation)
    dtype = None if preferred_element_type is None else jnp.dtype(preferred_element_type)
    window = _Window(strides, pads, dilation, feature_group_count, precision, dtype)
    try:
        return _conv(window, images, kernel)  # no forward mode (jvp, jacfwd, linearize): build the model with conv="plain"
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        expected = "'plain', or lax.conv_general_dilated instead of fast_conv, for forward mode (jax.jvp, jax.jacfwd)"
        raise SettingError("conv", "fast", expected) from error


def _check_layout(images: Array, kernel: Array, dimension_numbers: Any) -> None:
    if dimension_numbers is None:
        return
    ours = lax.conv_dimension_numbers(images.shape, kernel.shape, _LAYOUT)
    if lax.conv_dimension_numbers(images.shape, kernel.shape, dimension_numbers) != ours:
        raise SettingError("dimension_numbers", dimension_numbers, f"{_LAYOUT}")


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return int(first), int(second)


def _explicit(
    padding: Padding, size: Sequence[int], kernel: Sequence[int], strides: tuple[int, int], dilation: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding in numbers, one (low, high) per spatial axis."""
    if isinstance(padding, str):
        extent = [_extent(points, spacing) for points, spacing in zip(kernel, dilation, strict=True)]
        padding = lax.padtype_to_pads(size, extent, strides, padding)
    (top, bottom), (left, right) = padding
    return (int(top), int(bottom)), (int(left), int(right))


def _extent(points: int, spacing: int) -> int:
    return (points - 1) * spacing + 1


def _plain(window: _Window, images: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.kernel_dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=window.groups,
        precision=window.precision,
        preferred_element_type=window.dtype,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(window: _Window, images: Array, kernel: Array) -> Array:
    return _plain(window, images, kernel)


def _forward(window: _Window, images: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _plain(window, images, kernel), (images, kernel)


def _backward(window: _Window, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    images, kernel = residuals
    # Whichever of the two a caller does not use is removed under jit, so an attack never pays for the weights' gradient.
    (kernel_gradient,) = jax.vjp(lambda weights: _plain(window, images, weights), kernel)[1](cotangent)
    return _images_gradient(window, images, kernel, cotangent), kernel_gradient


def _images_gradient(window: _Window, images: Array, kernel: Array, cotangent: Array) -> Array:
    flipped = lax.optimization_barrier(_swap_features(jnp.flip(kernel, (0, 1)), window.groups))
    pads = [
        _transposed_padding(images.shape[1 + axis], cotangent.shape[1 + axis], kernel.shape[axis], axis, window)
        for axis in (0, 1)
    ]
    gradient = lax.conv_general_dilated(
        cotangent.astype(kernel.dtype),
        flipped,
        (1, 1),
        pads,
        lhs_dilation=window.strides,
        rhs_dilation=window.kernel_dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=window.groups,
        precision=window.precision,
        preferred_element_type=window.dtype,
    )
    return gradient.astype(images.dtype)


def _swap_features(kernel: Array, groups: int) -> Array:
    """[h, w, C/g, F] to [h, w, F/g, C], group by group."""
    height, width, inputs, outputs = kernel.shape
    if groups == 1:
        return jnp.swapaxes(kernel, 2, 3)
    grouped = kernel.reshape(height, width, inputs, groups, outputs // groups)
    return jnp.transpose(grouped, (0, 1, 4, 3, 2)).reshape(height, width, outputs // groups, groups * inputs)


def _transposed_padding(size: int, out: int, points: int, axis: int, window: _Window) -> tuple[int, int]:
    """The padding (it may be negative) with which the transposed convolution returns exactly ``size`` points."""
    extent = _extent(points, window.kernel_dilation[axis])
    low = extent - 1 - window.padding[axis][0]
    return low, size + extent - 1 - _extent(out, window.strides[axis]) - low


_conv.defvjp(_forward, _backward)


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
    batch, height, width, channels = images.shape
    if height < 2 or width < 2:
        raise SettingError("images", images.shape, "a height and width of at least 2 to pool")
    blocks = images[:, : height // 2 * 2, : width // 2 * 2].reshape(batch, height // 2, 2, width // 2, 2, channels)
    return jnp.max(blocks, axis=(2, 4))


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
