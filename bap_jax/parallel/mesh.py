"""Data parallelism: the batch is spread over all devices, the state lies on each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bap_jax.errors import SettingError
from bap_jax.threads import warn_of_few_threads
from bap_jax.types import PyTree

AXIS = "batch"


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
      batch: a pytree of host arrays, each ``[B, ...]``. On several hosts each gives its own part, in the order of the processes.

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
    if sizes:
        check_batch_size(sizes[0][0] * processes, mesh)
    sharding = batch_sharding(mesh)
    if processes == 1:
        # jax uses aligned host memory in place, whatever may_alias says
        own = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.array(leaf), batch)
        return jax.device_put(own, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.array(leaf)), batch)


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
    sharding = replicated(mesh)

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        host = np.array(jnp.asarray(leaf))  # a copy by way of the host: device_put would share the buffer, even when told not to
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index].copy())

    return jax.tree.map(place, state)


def jit_step(step: Callable[..., Any], mesh: Mesh | None = None) -> Callable[..., Any]:
    """Compile a training step for a mesh; the state is donated.

    Args:
      step: ``(state, batch) -> (state, metrics)``, pure and not yet jitted.
      mesh: from :func:`data_mesh`; ``None`` for the default device.

    Returns:
      The compiled step. It takes the state from :func:`replicate` (or from the step before) and the batch from
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
    return jax.jit(step, in_shardings=(everywhere, batch_sharding(mesh)), out_shardings=everywhere, donate_argnums=0)
