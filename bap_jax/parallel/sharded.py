"""The state spread over the devices by rule: each has a part of every large leaf, for networks that do not fit on one.

Fully sharded data parallelism, as big_vision has it: XLA gathers a layer's weights where the step computes with them and
scatters their gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bap_jax.types import PyTree

AXIS = "batch"  # that of bap_jax.parallel.data_mesh
LEAST = 2**14  # entries: a smaller leaf is cheaper to have than to gather


def sharding_of(mesh: Mesh, leaf: Any, least: int = LEAST) -> NamedSharding:
    """The rule: a leaf is cut along its longest axis that divides over the devices; a small one, or one without, is on each.

    So masks and moments lie as their weights do: they have their shapes.

    Args:
      mesh: from :func:`bap_jax.parallel.data_mesh`.
      leaf: an array, or what describes one.
      least: leaves of fewer entries are on each device.

    Example:
      >>> from bap_jax.parallel import data_mesh
      >>> spec = lambda *shape: tuple(sharding_of(data_mesh(2), jax.ShapeDtypeStruct(shape, jnp.float32)).spec)
      >>> spec(3, 3, 64, 128), spec(999, 64), spec(64)
      ((None, None, None, 'batch'), (None, 'batch'), ())
    """
    shape = np.shape(leaf)
    fits = [axis for axis, size in enumerate(shape) if size % mesh.size == 0 and size >= mesh.size]
    is_key = jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
    if is_key or np.prod(shape, dtype=np.int64) < least or not fits:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(fits, key=lambda axis: (shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*(AXIS if axis == longest else None for axis in range(longest + 1))))


def keeping_shards(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """A training step whose new state is spread as :func:`sharding_of` says."""

    def kept(leaf: jax.Array) -> jax.Array:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return leaf if is_key else jax.lax.with_sharding_constraint(leaf, sharding_of(mesh, leaf))

    def wrapped(state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        state, metrics = step(state, batch)
        return jax.tree.map(kept, state), metrics

    return wrapped


def sharded_init(mesh: Mesh, init: Callable[[], PyTree]) -> PyTree:
    """What a pure function makes, spread as :func:`sharding_of` says from the beginning: no device ever has all of it.

    Example:
      >>> from bap_jax.parallel import data_mesh
      >>> state = sharded_init(data_mesh(2), lambda: {"w": jnp.ones((256, 64)), "key": jax.random.key(0)})
      >>> state["w"].addressable_shards[0].data.shape
      (128, 64)
    """
    shardings = jax.tree.map(lambda leaf: sharding_of(mesh, leaf), jax.eval_shape(init))
    return jax.jit(init, out_shardings=shardings)()
