"""How many weights to keep, exact integers from traced sparsities, and how they are shared out among layers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.types import Array

_MILLION = 1_000_000
_LARGEST = 2**31 - 1


def kept_count(size: int, sparsity: float | Array) -> Array:
    """``round(size * (1 - sparsity))``, half to even, exact for every size.

    A float32 product is off by one at 11 million weights and by two at 34 million, so the product is taken in integers. A float32
    sparsity stands for the decimal of at most six digits that rounds to it where there is one (0.9 means 9/10), otherwise for
    its own binary value to 2^-31.

    Args:
      size: how many prunable weights there are, a Python integer below 2^31.
      sparsity: zeros / prunable, in [0, 1]; a Python number or a float32 scalar, which may be traced.

    Returns:
      int32 scalar in [0, size].

    Raises:
      SettingError: ``size`` is negative or too large, or a Python ``sparsity`` lies outside [0, 1].

    Example:
      >>> int(kept_count(33_600_001, 0.9)), int(kept_count(5, 0.5)), int(kept_count(7, 0.5))
      (3360000, 2, 4)
    """
    if not 0 <= size <= _LARGEST:
        raise SettingError("size", size, f"a count in [0, {_LARGEST}]")
    if isinstance(sparsity, float | int):
        if not 0 <= sparsity <= 1:
            raise SettingError("sparsity", sparsity, "a number in [0, 1]")
        return jnp.int32(round(size * (1 - Fraction(str(sparsity)))))
    sparsity = jnp.clip(jnp.asarray(sparsity, jnp.float32), 0.0, 1.0)
    millionths = jnp.round(sparsity * _MILLION).astype(jnp.uint32)
    units = (sparsity * jnp.float32(2**31)).astype(jnp.uint32)  # exact from 2^-8 up
    decimal = _times_decimal(size, _MILLION - millionths)
    binary = _times_binary(size, jnp.uint32(2**31) - units)
    return jnp.where(_rounds_to(millionths, sparsity, units), decimal, binary).astype(jnp.int32)


def erk_densities(shapes: Sequence[tuple[int, ...]], sparsity: float | Array) -> Array:
    """Erdős–Rényi-kernel densities: layer l keeps a fraction proportional to ``sum(shape) / prod(shape)``, at most 1.

    Layers that would exceed 1 are dense, and the others share what is left.

    Args:
      shapes: one shape per layer.
      sparsity: of the whole, in [0, 1]; may be traced.

    Returns:
      float32 [num_layers] densities in [0, 1].

    Example:
      >>> [round(float(d), 3) for d in erk_densities([(2, 2), (100, 100)], 0.9)]
      [1.0, 0.1]

    References:
      Evci et al., Rigging the lottery, 2020, section 3.
    """
    sizes = np.array([np.prod(shape) for shape in shapes], np.float64)
    raw = np.array([np.sum(shape) for shape in shapes], np.float64) / sizes
    order = np.argsort(-raw, kind="stable")
    dense_before = np.concatenate([[0.0], np.cumsum(sizes[order])])[:-1]  # with the first i layers dense
    weight_after = np.cumsum((sizes * raw)[order][::-1])[::-1]
    budget = (1.0 - jnp.float32(sparsity)) * sizes.sum()
    factor = jnp.maximum(budget - dense_before, 0.0) / weight_after  # [num_layers], one candidate per number of dense layers
    fits = factor * raw[order] <= 1.0  # then no further layer exceeds 1
    densities = jnp.minimum(jnp.where(jnp.any(fits), factor[jnp.argmax(fits)], jnp.inf) * raw, 1.0)
    return densities.astype(jnp.float32)


def erk_counts(shapes: Sequence[tuple[int, ...]], sparsity: float | Array, room: Sequence[Array] | None = None) -> list[Array]:
    """How many weights each layer keeps under :func:`erk_densities`; the counts sum to ``kept_count(total, sparsity)`` exactly.

    What rounding down leaves over goes to the layers with the largest fractional part. With ``room``, the most that each layer
    can keep, what one has no room for goes to those with the most room left; where there is not enough in all, all of it is kept.

    Example:
      >>> [int(count) for count in erk_counts([(2, 2), (100, 100)], 0.9)]
      [4, 996]
      >>> [int(count) for count in erk_counts([(2, 2), (100, 100)], 0.9, [jnp.int32(1), jnp.int32(5000)])]
      [1, 999]
    """
    sizes = jnp.array([int(np.prod(shape)) for shape in shapes], jnp.int32)
    wanted = sizes * erk_densities(shapes, sparsity)
    counts = jnp.clip(jnp.floor(wanted).astype(jnp.int32), 0, sizes)
    total = kept_count(int(sum(np.prod(shape) for shape in shapes)), sparsity)
    by_fraction = jnp.argsort(jnp.argsort(-(wanted - counts) + 2.0 * (counts == sizes), stable=True))
    counts = jnp.minimum(counts + (by_fraction < total - jnp.sum(counts)), sizes)
    if room is not None:
        sizes = jnp.stack(room)
        counts, total = jnp.minimum(counts, sizes), jnp.minimum(total, jnp.sum(sizes))
    # float32 densities of very large layers leave a few more (or fewer): fill by room, empty by size
    for _ in range(len(shapes)):
        rest = total - jnp.sum(counts)
        layer = jnp.where(rest > 0, jnp.argmax(sizes - counts), jnp.argmax(counts))
        counts = counts.at[layer].set(jnp.clip(counts[layer] + rest, 0, sizes[layer]))
    return [counts[i] for i in range(len(shapes))]


def _rounds_to(millionths: Array, sparsity: Array, units: Array) -> Array:
    """Whether ``millionths / 10^6`` lies within half a ULP of the float32 ``sparsity = units / 2^31``.

    In integers: a compiler may turn a float division by a constant into a product, which rounds otherwise. The difference times
    2^31 * 10^6 is known to be below 2^31, so wrapping uint32 arithmetic gives it exactly.
    """
    difference = jax.lax.bitcast_convert_type((millionths << 31) - units * jnp.uint32(_MILLION), jnp.int32)
    exponent = (jax.lax.bitcast_convert_type(sparsity, jnp.uint32) >> 23).astype(jnp.int32) - 126  # sparsity in [2^(e-1), 2^e)
    half_ulp = (128 * _MILLION) >> jnp.clip(1 - exponent, 0, 31)
    return jnp.abs(difference) <= jnp.maximum(half_ulp, _MILLION)


def _times_decimal(size: int, numerator: Array) -> Array:
    """``size * numerator / 10^6`` rounded half to even, in uint32 without overflow."""
    millions, rest = divmod(size, _MILLION)
    high, low = divmod(rest, 1000)
    above, below = numerator // 1000, numerator % 1000
    tail = (high * below + low * above) * 1000 + low * below  # < 2^32
    whole = millions * numerator + high * above + tail // _MILLION
    return _round_half_even(whole, tail % _MILLION, jnp.uint32(_MILLION // 2))


def _times_binary(size: int, numerator: Array) -> Array:
    """``size * numerator / 2^31`` rounded half to even, by 16-bit limbs."""
    size_high, size_low = jnp.uint32(size >> 16), jnp.uint32(size & 0xFFFF)
    high, low = numerator >> 16, numerator & 0xFFFF
    bottom = size_low * low
    middle = size_low * high + (bottom >> 16)
    cross = size_high * low + (middle & 0xFFFF)
    upper = size_high * high + (middle >> 16) + (cross >> 16)  # product = upper * 2^32 + lower
    lower = (cross << 16) | (bottom & 0xFFFF)
    return _round_half_even((upper << 1) | (lower >> 31), lower & jnp.uint32(2**31 - 1), jnp.uint32(2**30))


def _round_half_even(whole: Array, rest: Array, half: Array) -> Array:
    up = (rest > half) | ((rest == half) & (whole % 2 == 1))
    return whole + up.astype(whole.dtype)
