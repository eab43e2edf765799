"""The k largest of many values, by bits and counts: exact, ties in order, and on a CPU many times faster than a sort."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.types import Array


def highest(holds: Callable[[Array], Array], zero: Array, num_bits: int) -> Array:
    """The largest integer for which a condition holds that no larger one meets again, built bit by bit from the highest.

    Args:
      holds: of integers shaped like ``zero``, a bool for each; true of 0, and false from some integer on.
      zero: zeros of an integer type, shaped like the answer.
      num_bits: how many bits the answer can have.

    Returns:
      Integers shaped like ``zero``.

    Example:
      >>> int(highest(lambda n: n * n <= 50, jnp.int32(0), 8))
      7
    """

    def set_bit(position: Array, found: Array) -> Array:
        bit = jax.lax.shift_left(jnp.ones((), zero.dtype), (num_bits - 1 - position).astype(zero.dtype))
        trial = found | bit
        return jnp.where(holds(trial), trial, found)

    return jax.lax.fori_loop(0, num_bits, set_bit, zero)


def top_k(scores: Sequence[Array], k: int | Array) -> list[Array]:
    """Masks of the ``k`` largest entries among all arrays together; ties go to the earlier array and the lower flat index.

    The k-th largest value is found by bisection on the bit pattern of the floats, 32 counting passes whatever the distribution,
    and ties by bisection on the index. Entries are counted, never sorted or concatenated.

    Args:
      scores: arrays of any shapes, floating point; NaN counts as larger than everything.
      k: how many to keep in all, clipped to [0, total size]; may be traced.

    Returns:
      Bool arrays of the same shapes with ``k`` entries True in all.

    Example:
      >>> import jax.numpy as jnp
      >>> [mask.tolist() for mask in top_k([jnp.array([3.0, 1.0]), jnp.array([2.0, 3.0])], 2)]
      [[True, False], [False, True]]
    """
    if sum(score.size for score in scores) >= 2**31:
        raise SettingError("scores", sum(score.size for score in scores), "fewer than 2^31 entries in all")
    ordered = [_ordered_bits(score) for score in scores]
    k = jnp.asarray(k, jnp.int32)

    def count(threshold: Array) -> Array:
        return sum((jnp.sum(bits >= threshold, dtype=jnp.int32) for bits in ordered), jnp.int32(0))

    threshold = highest(lambda trial: count(trial) >= k, jnp.uint32(0), 32)
    above = [bits > threshold for bits in ordered]
    tied = [bits == threshold for bits in ordered]
    room = k - sum((jnp.sum(mask, dtype=jnp.int32) for mask in above), jnp.int32(0))
    masks = []
    for more, ties in zip(above, tied, strict=True):
        num_ties = jnp.sum(ties, dtype=jnp.int32)
        masks.append(more | _first(ties, num_ties, room))
        room = room - jnp.clip(num_ties, 0, jnp.maximum(room, 0))
    return masks


def among_largest(magnitudes: Array, count: int | Array) -> Array:
    """Where a row's value is at least its ``count``-th largest; values tied with that one are taken too.

    Args:
      magnitudes: [B, D], ≥ 0.
      count: how many, at least 1; a scalar or [B], may be traced.

    Returns:
      [B, D] bool.

    Example:
      >>> import jax.numpy as jnp
      >>> among_largest(jnp.array([[3.0, 1.0, 2.0, 2.0]]), 2)
      Array([[ True, False,  True,  True]], dtype=bool)
    """
    bits, threshold = _threshold(magnitudes, count)
    return bits >= threshold


def exactly_largest(magnitudes: Array, count: int | Array) -> Array:
    """Where a row's ``count`` largest values stand; of those that tie for the last place the ones with the lowest index.

    Args:
      magnitudes: [B, D], ≥ 0.
      count: how many, from 0 to D; a scalar or [B], may be traced.

    Returns:
      [B, D] bool, ``count`` of them true in every row.

    Example:
      >>> import jax.numpy as jnp
      >>> exactly_largest(jnp.array([[3.0, 1.0, 2.0, 2.0]]), 2)
      Array([[ True, False,  True, False]], dtype=bool)
    """
    bits, threshold = _threshold(magnitudes, count)
    above, tied = bits > threshold, bits == threshold
    room = count - jnp.sum(above, axis=1)
    return above | (tied & (jnp.cumsum(tied, axis=1) <= room[:, None]))


def project_l0(delta: Array, count: int | Array) -> Array:
    """The nearest point with at most ``count`` features: each example keeps its largest |δ|, the rest becomes zero.

    Of features that tie for the last place those with the lowest index stay, so that never more than ``count`` do (perturbations
    that lie on the walls of a box tie often). Nothing is sorted: the threshold is built bit by bit from counts.

    Args:
      delta: [B, ...] perturbations.
      count: how many features may stay, a scalar or [B], rounded down; may be traced. Below 1 nothing
        stays, from D on everything.

    Returns:
      [B, ...] with ‖δ‖₀ ≤ count.

    Raises:
      SettingError: a count that is neither a scalar nor one per example.

    Example:
      >>> import jax.numpy as jnp
      >>> project_l0(jnp.array([[3.0, -1.0, 2.0], [1.0, 1.0, 1.0]]), jnp.array([1, 2]))
      Array([[3., 0., 0.],
             [1., 1., 0.]], dtype=float32)
    """
    rows = jnp.asarray(count)
    if rows.shape not in ((), delta.shape[:1]):
        raise SettingError("count", rows.shape, f"a scalar or one value per example, shape {delta.shape[:1]}")
    flat = delta.reshape(delta.shape[0], -1)
    whole = jnp.floor(rows) if jnp.issubdtype(rows.dtype, jnp.floating) else rows
    kept = jnp.broadcast_to(jnp.clip(whole, 0, flat.shape[1]).astype(jnp.int32), delta.shape[:1])
    return jnp.where(exactly_largest(jnp.abs(flat), kept), flat, 0).reshape(delta.shape)


def bits_of(magnitudes: Array) -> Array:
    """Values ≥ 0 as int32 that order as they do; the highest of the 31 bits is bit 30.

    Example:
      >>> (bits_of(jnp.array([0.5, 2.0])) < bits_of(jnp.array([1.0, 1.0]))).tolist()
      [True, False]
    """
    return jax.lax.bitcast_convert_type(magnitudes.astype(jnp.float32), jnp.int32)


def _ordered_bits(score: Array) -> Array:
    """uint32 that order as the floats do (negative floats reversed, -0 equal to +0)."""
    bits = jax.lax.bitcast_convert_type(score.astype(jnp.float32), jnp.uint32)
    bits = jnp.where(bits == jnp.uint32(2**31), jnp.uint32(0), bits)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(2**31))


def _first(mask: Array, num_true: Array, n: Array) -> Array:
    """Keeps the first ``n`` of the ``num_true`` True entries, in flat order."""
    index = jnp.arange(mask.size, dtype=jnp.int32).reshape(mask.shape)

    def cut() -> Array:
        few = lambda end: jnp.sum(mask & (index < end), dtype=jnp.int32) <= n  # noqa: E731
        return mask & (index < highest(few, jnp.int32(0), max(mask.size.bit_length(), 1)))

    return jax.lax.cond(n >= num_true, lambda: mask, lambda: jax.lax.cond(n <= 0, lambda: jnp.zeros_like(mask), cut))


def _threshold(magnitudes: Array, count: int | Array) -> tuple[Array, Array]:
    """The values as ordered integers [B, D], and the largest integer that at least ``count`` of a row reach [B, 1]."""
    bits = bits_of(magnitudes)
    enough = lambda trial: jnp.sum(bits >= trial[:, None], axis=1) >= count  # noqa: E731
    return bits, highest(enough, bits[:, 0] * 0, 31)[:, None]
