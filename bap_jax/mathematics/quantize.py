"""Weights as small integers: symmetric, a scale per output channel, and the bits that this costs."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.types import Array

_SCALE_BITS = 32
_SCALE_MANTISSA = 16  # with the leading one 17 bits; 24 of a float32 hold their product with 7


class Quantized(NamedTuple):
    """A kernel in integers: ``values * scale`` is nearly what it was."""

    values: Array  # [..., channels] int8
    scale: Array  # [1, ..., channels], of the kernel's own dtype


def quantize(kernel: Array, *, bits: int = 8) -> Quantized:
    """A kernel rounded to integers in [-(2^(bits-1) - 1), 2^(bits-1) - 1], with a scale for each output channel.

    The scale is the channel's largest magnitude over the largest integer, so that nothing is cut off, and each weight moves by
    half a scale at most (but for rounding in the kernel's dtype). Zero stays zero: a mask holds for the result too. Of a float32
    kernel the scale is rounded to 17 significant bits, so that integers times scales are exact, and quantising what was
    quantised changes nothing.

    Args:
      kernel: [..., channels] finite floats, the output channels last, as in [in, out] and HWIO.
      bits: 2 to 8; the values are stored as int8 whatever it is.

    Returns:
      A :class:`Quantized`; a channel of zeros alone has the scale 1.

    Raises:
      SettingError: ``bits`` out of range, or a kernel that is no array of floats with at least one axis and one entry.

    Example:
      >>> found = quantize(jnp.array([[1.0, 0.0], [-127.0, 0.0]]))
      >>> found.values.tolist(), found.scale.tolist()
      ([[1, 0], [-127, 0]], [[1.0, 1.0]])
    """
    _check_bits("bits", bits, 2, 8)
    kernel = _kernel(kernel)
    largest = 2 ** (bits - 1) - 1
    scale = jnp.max(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)), keepdims=True) / largest
    if scale.dtype == jnp.float32:
        scale = jax.lax.reduce_precision(scale, exponent_bits=8, mantissa_bits=_SCALE_MANTISSA)
    scale = jnp.where(scale > 0, scale, jnp.ones_like(scale))
    return Quantized(jnp.clip(jnp.round(kernel / scale), -largest, largest).astype(jnp.int8), scale)


def dequantize(quantized: Quantized) -> Array:
    """The floats that a quantised kernel stands for.

    Args:
      quantized: of :func:`quantize`.

    Returns:
      [..., channels], of the scale's dtype.

    Example:
      >>> dequantize(quantize(jnp.array([[0.5], [-1.0]]), bits=2)).tolist()  # 0.5 lies between 0 and 1: to the even one
      [[0.0], [-1.0]]
    """
    return quantized.values.astype(quantized.scale.dtype) * quantized.scale


def fake_quantize(kernel: Array, *, bits: int = 8) -> Array:
    """The kernel as it is after :func:`quantize` and :func:`dequantize`, with the derivative of the identity.

    For a training step that is to see the rounding. As no weight is cut off, the straight-through estimate holds for all alike.

    Args:
      kernel: [..., channels] finite floats.
      bits: 2 to 8.

    Returns:
      [..., channels] floats, exactly those of the quantised kernel.

    Raises:
      SettingError: as :func:`quantize`.

    Example:
      >>> kernel = jnp.array([[0.4], [-1.0]])
      >>> fake_quantize(kernel, bits=2).tolist(), jax.grad(lambda k: fake_quantize(k, bits=2).sum())(kernel).tolist()
      ([[0.0], [-1.0]], [[1.0], [1.0]])

    References:
      Bengio, Léonard, Courville 2013, "Estimating or Propagating Gradients Through Stochastic Neurons".
    """
    _check_bits("bits", bits, 2, 8)
    return _straight_through(_kernel(kernel), bits)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _straight_through(kernel: Array, bits: int) -> Array:
    return dequantize(quantize(kernel, bits=bits))


@_straight_through.defjvp
def _identity(bits: int, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    return _straight_through(primals[0], bits), tangents[0]


def quantized_bits(shape: tuple[int, ...], *, bits: int = 8) -> int:
    """What a quantised kernel takes: its weights, and a float32 scale for each output channel.

    Args:
      shape: (..., channels).
      bits: of a weight, 2 to 8.

    Returns:
      Bits.

    Raises:
      SettingError: ``bits`` out of range.

    Example:
      >>> quantized_bits((3, 3, 16, 32))
      37888
    """
    _check_bits("bits", bits, 2, 8)
    return math.prod(shape) * bits + shape[-1] * _SCALE_BITS


def bit_operations(flops: int, *, weight_bits: int, activation_bits: int = 32) -> int:
    """BOPs: multiply-accumulates times the bits of their two factors.

    Args:
      flops: of :func:`bap_jax.models.flops.count_flops`, dense or sparse: a multiplication with its addition being two.
      weight_bits: 1 to 64.
      activation_bits: 1 to 64; 32 where only the weights are quantised.

    Returns:
      Bit operations.

    Raises:
      SettingError: bits out of range.

    Example:
      >>> bit_operations(2000, weight_bits=8)
      256000

    References:
      Wang, Lu, Blankevoort 2020, "Differentiable Joint Pruning and Quantization for Hardware Efficiency".
    """
    _check_bits("weight_bits", weight_bits, 1, 64)
    _check_bits("activation_bits", activation_bits, 1, 64)
    return flops // 2 * weight_bits * activation_bits


def _kernel(kernel: Array) -> Array:
    kernel = jnp.asarray(kernel)
    if kernel.ndim < 1 or kernel.size == 0 or not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise SettingError("kernel", f"{kernel.dtype}{list(kernel.shape)}", "floats [..., channels], at least one")
    return kernel


def _check_bits(name: str, bits: int, least: int, most: int) -> None:
    if not isinstance(bits, int) or isinstance(bits, bool) or not least <= bits <= most:
        raise SettingError(name, bits, f"an integer from {least} to {most}")
