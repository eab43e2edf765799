"""How a sparsity is shared out among layers."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from bap_jax.mathematics.sparsity import kept_count
from bap_jax.types import Array


def erk_densities(shapes: Sequence[tuple[int, ...]], sparsity: float | Array) -> Array:
    """Erdős–Rényi-kernel densities: layer l keeps a fraction proportional to ``sum(shape) / prod(shape)``, at most 1.

    Layers that would exceed 1 are dense, and the others share what is left.

    Args:
      shapes: one shape per layer.
      sparsity: of the whole, in [0, 1]; may be traced.

    Returns:
      float32 [num_layers] densities in [0, 1].

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
