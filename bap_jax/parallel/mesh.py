"""Data parallelism: the batch is spread over all devices, the state lies on each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bap_jax.errors import SettingError
from bap_jax.parallel.sharded import AXIS, keeping_shards, sharding_of
from bap_jax.threads import warn_of_few_threads
from bap_jax.types import PyTree


def data_mesh(devices: int | Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the single axis ``"batch"``.

    Args:
      devices: the devices, or how many of the first; all devices of all hosts by default.

    Returns:
      The mesh. Its axis is of the type Auto: XLA works out how arrays inside a step are spread.

    Raises:
      SettingError: there are not that many devices.

    Warns:
      UserWarning: there are several CPU devices, and so few threads that a step over them may never end.

    Example:
      >>> data_mesh(1).axis_names
      ('batch',)
    """
    if devices is None or isinstance(devices, int):
        there = jax.devices()
        count = len(there) if devices is None else devices
        if not 1 <= count <= len(there):
            raise SettingError("devices", devices, f"1 to {len(there)}, the {there[0].platform} devices that jax sees")
        devices = there[:count]
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    _check_threads(mesh)
    return mesh


def _check_threads(mesh: Mesh) -> None:
    """Warns of several CPU devices with few threads, whoever made the mesh."""
    here = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    if here and here[0].platform == "cpu":
        warn_of_few_threads(len(here))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension spread over the devices.

    Example:
      >>> batch_sharding(data_mesh(1)).spec[0]
      'batch'
    """
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device.

    Example:
      >>> replicated(data_mesh(1)).is_fully_replicated
      True
    """
    if isinstance(mesh, Mesh):  # an abstract one has no devices
        _check_threads(mesh)
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, mesh: Mesh, name: str = "batch_size") -> None:
    """Refuse a batch that does not divide over the devices.

    Args:
      batch_size: examples in the whole batch, over all hosts.
      mesh: from :func:`data_mesh`.
      name: the setting, as the user wrote it.

    Raises:
      SettingError: the batch does not divide; the message holds the nearest sizes that do.

    Example:
      >>> check_batch_size(128, data_mesh(1))
    """
    if batch_size < 1 or batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        near = [size for size in (below, below + mesh.size) if size > 0]
        raise SettingError(name, batch_size, f"a multiple of the {mesh.size} devices, such as {' or '.join(map(str, near))}")


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Spread a batch from the host over the devices.

    Args:
      mesh: from :func:`data_mesh`.
      batch: a pytree of host arrays, each ``[B, ...]``. On several hosts each gives its own part, see :func:`own_rows`.

    Returns:
      The tree with global arrays, ``[B * processes, ...]``, their first dimension spread over the devices. They share no memory
      with ``batch``, whose buffers may be filled again.

    Raises:
      SettingError: an array has no first dimension, the first dimensions differ, or they do not divide over the devices.

    Example:
      >>> import numpy as np
      >>> shard_batch(data_mesh(1), {"images": np.zeros((4, 2))})["images"].shape
      (4, 2)
    """
    sizes = [np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)]
    if any(size != sizes[0] or not size for size in sizes):
        raise SettingError(
            "batch", [np.shape(leaf) for leaf in jax.tree.leaves(batch)], "arrays with one first dimension, the batch"
        )
    processes = len({device.process_index for device in mesh.devices.flat})
    total = sizes[0][0] * processes if sizes else 0
    if sizes:
        check_batch_size(total, mesh)
    sharding = batch_sharding(mesh)
    if processes == 1:
        # jax uses aligned host memory in place, whatever may_alias says
        own = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.array(leaf), batch)
        return jax.device_put(own, sharding)
    rows = np.arange(total)[own_rows(mesh, total)]

    def spread(leaf: Any) -> jax.Array:
        own = np.asarray(leaf)

        def part(index: Any) -> np.ndarray:
            begin = int(np.searchsorted(rows, index[0].start or 0))
            return own[begin : begin + total // mesh.size].copy()

        return jax.make_array_from_callback((total, *own.shape[1:]), sharding, part)

    return jax.tree.map(spread, batch)


def own_rows(mesh: Mesh | None, batch_size: int) -> slice | np.ndarray:
    """Which rows of a global batch this process makes: those of its own devices, in their order; all without a mesh.

    Args:
      mesh: from :func:`data_mesh`.
      batch_size: rows of the whole batch.

    Example:
      >>> own_rows(data_mesh(1), 4)
      slice(None, None, None)
    """
    if mesh is None or mesh.is_multi_process is False:
        return slice(None)
    share = batch_size // mesh.size
    places = [place for place, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    return np.concatenate([np.arange(place * share, (place + 1) * share) for place in places])


def check_chunks(batch_size: int, mesh: Mesh, count: int, name: str = "microbatches") -> None:
    """Refuse chunks of a batch that do not divide over the devices.

    Args:
      batch_size: examples in the whole batch.
      mesh: from :func:`data_mesh`.
      count: of chunks.
      name: the setting, as the user wrote it.

    Raises:
      SettingError: a chunk does not divide over the devices.

    Example:
      >>> check_chunks(128, data_mesh(1), 4)
    """
    if batch_size % (count * mesh.size):
        raise SettingError(name, count, f"chunks of {batch_size} examples that divide over the {mesh.size} devices")


def replicate(mesh: Mesh, state: PyTree) -> PyTree:
    """Put a copy of a state on every device.

    Args:
      mesh: from :func:`data_mesh`.
      state: a pytree of arrays and typed random keys, the same on all hosts.

    Returns:
      The tree with every leaf on all devices. The copies share no memory with ``state``, which therefore outlives a step that
      its copies are donated to.

    Example:
      >>> import jax.numpy as jnp
      >>> replicate(data_mesh(1), {"w": jnp.ones(2)})["w"].sharding.is_fully_replicated
      True
    """
    return jax.tree.map(lambda leaf: put(leaf, replicated(mesh)), state)


def shard_state(mesh: Mesh, state: PyTree) -> PyTree:
    """Spread a state over the devices as :func:`bap_jax.parallel.sharding_of` says; what lies so already stays.

    Args:
      mesh: from :func:`data_mesh`.
      state: a pytree of arrays and typed random keys, the same on all hosts.

    Example:
      >>> shard_state(data_mesh(1), {"w": np.ones(2)})["w"].tolist()
      [1.0, 1.0]
    """

    def placed(leaf: Any) -> jax.Array:
        sharding = sharding_of(mesh, leaf)
        lies = isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
        return leaf if lies else put(leaf, sharding)

    return jax.tree.map(placed, state)


def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """A copy of a host's array, or of one of its devices', as a sharding says.

    Example:
      >>> put(np.ones(2), replicated(data_mesh(1))).tolist()
      [1.0, 1.0]
    """
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    host = np.array(jnp.asarray(leaf))  # a copy by way of the host: device_put would share the buffer, even when told not to
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index].copy())


def jit_step(step: Callable[..., Any], mesh: Mesh | None = None, *, shard: bool = False) -> Callable[..., Any]:
    """Compile a training step for a mesh; the state is donated.

    Args:
      step: ``(state, batch) -> (state, metrics)``, pure and not yet jitted.
      mesh: from :func:`data_mesh`; ``None`` for the default device.
      shard: whether the state is spread over the devices by :func:`bap_jax.parallel.sharding_of`, instead of being on each.

    Returns:
      The compiled step. It takes the state from :func:`replicate`, or if ``shard`` :func:`bap_jax.parallel.shard_state` (or from
      the step before) and the batch from
      :func:`shard_batch`; a state given to it must not be used again.

    Example:
      >>> import jax.numpy as jnp
      >>> step = jit_step(lambda state, batch: (state + batch.sum(), {"sum": batch.sum()}), data_mesh(1))
      >>> float(step(jnp.float32(1), jnp.ones(4))[0])
      5.0
    """
    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    everywhere = replicated(mesh)
    if shard:
        return jax.jit(
            keeping_shards(step, mesh),
            in_shardings=(None, batch_sharding(mesh)),
            out_shardings=(None, everywhere),
            donate_argnums=0,
        )
    return jax.jit(step, in_shardings=(everywhere, batch_sharding(mesh)), out_shardings=everywhere, donate_argnums=0)
