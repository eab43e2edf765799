"""Two-dimensional convolution whose gradients are fast on a CPU, inside loops, too; values and gradients are those of lax."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from bap_jax.errors import SettingError
from bap_jax.mathematics.jaxprs import with_primitives
from bap_jax.types import Array

ConvKind = Literal["fast", "plain"]
Conv = Literal["auto", "fast", "plain"]
Padding = str | Sequence[tuple[int, int]]

CONV_VARIABLE = "BAP_CONV"  # of the environment
_LAYOUT = ("NHWC", "HWIO", "NHWC")
FEW_CHANNELS = 3  # up to so many, the gradient with respect to the images is a matrix product and shifted sums
BLOCK_CHANNELS, BLOCK_POINTS, BLOCK_IMAGES = 16, 256, 4  # up to, from, so many at a time: the gradient of a kernel by blocks


def conv_kind(conv: Conv = "auto") -> ConvKind:
    """Which convolutions are meant: ``"fast"`` or ``"plain"``; with ``"auto"`` what the environment variable BAP_CONV says (which
    ``--conv`` sets), and where it says nothing or ``auto``, fast if JAX's default backend is the CPU.

    Raises:
      SettingError: something else.

    Example:
      >>> conv_kind("plain")
      'plain'
    """
    if conv not in get_args(Conv):
        raise SettingError("conv", conv, "'auto', 'fast' or 'plain'")
    told: Any = os.environ.get(CONV_VARIABLE, "auto") if conv == "auto" else conv
    if told not in get_args(Conv):
        raise SettingError(CONV_VARIABLE, told, "auto, fast or plain")
    if told == "auto":
        return "fast" if jax.default_backend() == "cpu" else "plain"
    return told


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
    """Two-dimensional convolution whose gradients are as fast inside a loop as outside.

    Inside ``scan`` and ``fori_loop`` XLA:CPU folds the transposes that a gradient needs into the convolution itself, and that
    form takes a path many times slower. Here the backward pass transposes first, holds the result behind an optimisation barrier,
    and runs an ordinary convolution, or a matrix product where that is faster. Values and gradients are those of
    ``lax.conv_general_dilated``; every transformation of jax works.

    The arguments are those of ``lax.conv_general_dilated``, so that the function can be given to Linen's and NNX's
    ``Conv(conv_general_dilated=fast_conv)``; :func:`bap_jax.fast` brings it into any function.

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
      SettingError: an argument that is not supported, or shapes that do not fit.

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

    def convolve(images: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            images,
            kernel,
            _pair(window_strides),
            padding if isinstance(padding, str) else [(int(low), int(high)) for low, high in padding],
            rhs_dilation=None if rhs_dilation is None else _pair(rhs_dilation),
            dimension_numbers=_LAYOUT,
            feature_group_count=feature_group_count,
            precision=precision,
            preferred_element_type=preferred_element_type,
        )

    return with_fast(convolve)(images, kernel)


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


def with_fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays, one array its result, with the fast convolution in place of lax's."""

    def run(*arrays: Array) -> Any:
        (result,) = core.jaxpr_as_fun(with_primitives(jax.make_jaxpr(function)(*arrays), fast_primitive))(*arrays)
        return result

    return run


def fast_primitive(operation: Any) -> Any:
    """The fast convolution for an operation that it can do: a convolution in two dimensions, of any layout, whose images are not
    dilated (as those of a transposed convolution are), whose batch is not grouped, and whose numbers are real; else None.
    """
    if operation.primitive is not lax.conv_general_dilated_p:
        return None
    params = operation.params
    images, kernel = (variable.aval for variable in operation.invars)
    fits = len(images.shape) == 4 and min(*images.shape, *kernel.shape) > 0
    fits &= params["batch_group_count"] == 1 and all(step == 1 for step in params["lhs_dilation"])
    fits &= params["out_sharding"] is None and all(jnp.issubdtype(aval.dtype, jnp.floating) for aval in (images, kernel))
    return _convolution if fits else None


# The same operation by the same name and with the same parameters, so that whoever reads a program knows it: only its gradients
# are computed in another way.
_convolution = core.Primitive(lax.conv_general_dilated_p.name)


def _plain(images: Array, kernel: Array, **params: Any) -> Array:
    return lax.conv_general_dilated_p.bind(images, kernel, **params)


def _channels_last(images: Array, kernel: Array, **params: Any) -> Array:
    """As XLA's convolution on a CPU likes it: of other layouts its form in a loop is as slow as that of the gradients."""
    order, kernel_order, out = _orders(params)
    if order == kernel_order == out == (0, 1, 2, 3):
        return _plain(images, kernel, **params)
    images, kernel = lax.optimization_barrier((jnp.transpose(images, order), jnp.transpose(kernel, kernel_order)))
    ours = lax.conv_dimension_numbers(images.shape, kernel.shape, _LAYOUT)
    return _back(_plain(images, kernel, **params | {"dimension_numbers": ours}), out)


class _Window(NamedTuple):
    """What a convolution is told, with channels last."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    kernel_dilation: tuple[int, int]
    groups: int
    precision: Any
    dtype: Any

    def extent(self, points: int, axis: int) -> int:
        """From the first to the last point of the kernel along an axis."""
        return (points - 1) * self.kernel_dilation[axis] + 1


def _window(params: dict[str, Any]) -> _Window:
    named = (params[name] for name in ("window_strides", "padding", "rhs_dilation"))
    strides, padding, dilation = (tuple(value) for value in named)
    return _Window(
        strides, padding, dilation, params["feature_group_count"], params["precision"], params["preferred_element_type"]
    )


def _orders(params: dict[str, Any]) -> tuple[tuple[int, ...], ...]:
    """The axes of images, kernel and result in the order of channels last."""
    images, kernel, out = params["dimension_numbers"]
    first, last = ((one[0], one[2], one[3], one[1]) for one in (images, out))
    return first, (kernel[2], kernel[3], kernel[1], kernel[0]), last


def _back(array: Array, order: Sequence[int]) -> Array:
    return jnp.transpose(array, [int(axis) for axis in np.argsort(order)])


def _of_images(cotangent: Array, images: Any, kernel: Array, **params: Any) -> Array:
    """The gradient with respect to the images, which are known by their shape alone."""
    shape, kernel_shape, out = _orders(params)
    size = tuple(images.aval.shape[axis] for axis in shape)
    cotangent, kernel = jnp.transpose(cotangent, out), jnp.transpose(kernel, kernel_shape)
    window = _window(params)
    rule = _few_channels if _has_few_channels(window, size) else _flipped
    return _back(rule(window, size, kernel, cotangent), shape).astype(images.aval.dtype)


def _has_few_channels(window: _Window, size: Sequence[int]) -> bool:
    return size[3] <= FEW_CHANNELS and window.groups == 1 and window.strides == (1, 1)


def _flipped(window: _Window, size: Sequence[int], kernel: Array, cotangent: Array) -> Array:
    """A convolution with the kernel turned round, which XLA is kept from folding into it."""
    turned = lax.optimization_barrier(_swap_features(jnp.flip(kernel, (0, 1)), window.groups))
    pads = [_transposed_padding(size[1 + axis], cotangent.shape[1 + axis], kernel.shape[axis], axis, window) for axis in (0, 1)]
    return lax.conv_general_dilated(
        cotangent.astype(kernel.dtype),
        turned,
        (1, 1),
        pads,
        lhs_dilation=window.strides,
        rhs_dilation=window.kernel_dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=window.groups,
        precision=window.precision,
        preferred_element_type=window.dtype,
    )


def _swap_features(kernel: Array, groups: int) -> Array:
    """[h, w, C/g, F] to [h, w, F/g, C], group by group."""
    height, width, inputs, outputs = kernel.shape
    if groups == 1:
        return jnp.swapaxes(kernel, 2, 3)
    grouped = kernel.reshape(height, width, inputs, groups, outputs // groups)
    return jnp.transpose(grouped, (0, 1, 4, 3, 2)).reshape(height, width, outputs // groups, groups * inputs)


def _transposed_padding(size: int, out: int, points: int, axis: int, window: _Window) -> tuple[int, int]:
    """The padding (it may be negative) with which the transposed convolution returns exactly ``size`` points."""
    extent = window.extent(points, axis)
    low = extent - 1 - window.padding[axis][0]
    return low, size + extent - 1 - ((out - 1) * window.strides[axis] + 1) - low


def _few_channels(window: _Window, size: Sequence[int], kernel: Array, cotangent: Array) -> Array:
    """What every point of the kernel sends to every channel, by one matrix product, and the sum of these shifted pictures."""
    height, width, channels, features = kernel.shape
    batch, rows, columns, _ = cotangent.shape
    sent = lax.dot_general(
        kernel.reshape(-1, features),
        cotangent.astype(kernel.dtype).reshape(-1, features),
        (((1,), (1,)), ((), ())),
        precision=window.precision,
        preferred_element_type=window.dtype,
    ).reshape(height, width, channels, batch, rows, columns)
    zero = jnp.zeros((), sent.dtype)
    total: Any = None
    for i in range(height):
        for j in range(width):
            down, right = (
                at * window.kernel_dilation[axis] - window.padding[axis][0] for axis, at in enumerate((i, j))
            )  # below 0 they cut
            pads = ((down, size[1] - rows - down, 0), (right, size[2] - columns - right, 0))
            shifted = lax.pad(sent[i, j], zero, ((0, 0, 0), (0, 0, 0), *pads))
            total = shifted if total is None else total + shifted
    return jnp.transpose(total, (1, 2, 3, 0))


def _of_kernel(cotangent: Array, images: Array, kernel: Any, **params: Any) -> Array:
    """The gradient with respect to the kernel, which is known by its shape alone."""
    shape, kernel_shape, out = _orders(params)
    size = tuple(kernel.aval.shape[axis] for axis in kernel_shape)
    images, cotangent = jnp.transpose(images, shape), jnp.transpose(cotangent, out)
    dtype = jnp.promote_types(images.dtype, cotangent.dtype)
    images, cotangent = images.astype(dtype), cotangent.astype(dtype)
    window = _window(params)
    gradient = _kernel_rule(window, size, images.shape, cotangent.shape)(window, size, images, cotangent)
    return _back(gradient, kernel_shape).astype(kernel.aval.dtype)


def _kernel_rule(window: _Window, size: Sequence[int], images: Sequence[int], out: Sequence[int]) -> Callable[..., Array]:
    """How a kernel's gradient is found soonest on a CPU, by measurement; see docs/networks.md."""
    if window.groups > 1:
        return _by_groups
    if size[0] == size[1] == 1 and window.padding == ((0, 0), (0, 0)):
        return _by_points
    wide = size[2] <= BLOCK_CHANNELS and out[1] * out[2] >= BLOCK_POINTS
    if wide and jax.device_count() == 1:  # a loop over images that several devices share would bring all to each
        return _by_blocks
    return _by_convolution


def _by_groups(window: _Window, size: Sequence[int], images: Array, cotangent: Array) -> Array:
    """As lax does it."""

    def convolve(kernel: Array) -> Array:
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

    (gradient,) = jax.linear_transpose(convolve, jax.ShapeDtypeStruct(size, images.dtype))(cotangent)
    return gradient


def _by_points(window: _Window, size: Sequence[int], images: Array, cotangent: Array) -> Array:
    """Of a kernel of one point: one matrix product over the places that it sees."""
    seen = _seen(window, images, cotangent.shape, 0, 0)
    return _products(window, seen.reshape(-1, size[2]).T, cotangent).reshape(size)


def _by_blocks(window: _Window, size: Sequence[int], images: Array, cotangent: Array) -> Array:
    """What every point of the kernel sees, a few images at a time, so that it stays in the cache."""
    images = lax.pad(images, jnp.zeros((), images.dtype), ((0, 0, 0), *((*pads, 0) for pads in window.padding), (0, 0, 0)))
    number = next(count for count in range(BLOCK_IMAGES, 0, -1) if images.shape[0] % count == 0)

    def add(total: Array, start: Array) -> tuple[Array, None]:
        some, theirs = (lax.dynamic_slice_in_dim(array, start, number) for array in (images, cotangent))
        seen = [_seen(window, some, theirs.shape, i, j) for i in range(size[0]) for j in range(size[1])]
        columns = jnp.concatenate(seen, axis=-1).reshape(-1, size[0] * size[1] * size[2])
        return total + _products(window, columns.T, theirs), None

    dtype = images.dtype if window.dtype is None else window.dtype
    begin = jnp.zeros((size[0] * size[1] * size[2], size[3]), dtype)
    return lax.scan(add, begin, jnp.arange(0, images.shape[0], number))[0].reshape(size)


def _seen(window: _Window, images: Array, out: Sequence[int], i: int, j: int) -> Array:
    """The entries of padded images that the point (i, j) of a kernel meets on its way."""
    starts = (i * window.kernel_dilation[0], j * window.kernel_dilation[1])
    steps = window.strides
    return images[:, starts[0] :: steps[0], starts[1] :: steps[1]][:, : out[1], : out[2]]


def _products(window: _Window, columns: Array, cotangent: Array) -> Array:
    return lax.dot_general(
        columns,
        cotangent.reshape(-1, cotangent.shape[3]),
        (((1,), (0,)), ((), ())),
        precision=window.precision,
        preferred_element_type=window.dtype,
    )


def _by_convolution(window: _Window, size: Sequence[int], images: Array, cotangent: Array) -> Array:
    """A convolution of the images with the cotangent, channels in the place of the batch, which XLA is kept from folding."""
    channels, kernels = lax.optimization_barrier((jnp.transpose(images, (3, 1, 2, 0)), jnp.transpose(cotangent, (1, 2, 0, 3))))
    pads = []
    for axis in (0, 1):
        low = window.padding[axis][0]
        reach = (cotangent.shape[1 + axis] - 1) * window.strides[axis] + window.extent(size[axis], axis)
        pads.append((low, reach - images.shape[1 + axis] - low))
    gradient = lax.conv_general_dilated(
        channels,
        kernels,
        window.kernel_dilation,
        pads,
        rhs_dilation=window.strides,
        dimension_numbers=_LAYOUT,
        precision=window.precision,
        preferred_element_type=window.dtype,
    )
    return jnp.transpose(gradient, (1, 2, 0, 3))


def _batched(arrays: Sequence[Array], axes: Sequence[Any], **params: Any) -> tuple[Array, int]:
    """Under ``vmap``: what lax makes of it, with the fast convolution in its place."""
    mapped = jax.vmap(lambda images, kernel: _plain(images, kernel, **params), in_axes=tuple(axes), out_axes=0)
    return with_fast(mapped)(*arrays), 0


_convolution.def_impl(_plain)
_convolution.def_effectful_abstract_eval(lax.conv_general_dilated_p.abstract_eval)
ad.defbilinear(_convolution, _of_images, _of_kernel)
batching.primitive_batchers[_convolution] = _batched
mlir.register_lowering(_convolution, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(_convolution, mlir.lower_fun(_channels_last, multiple_results=False), platform="cpu")
