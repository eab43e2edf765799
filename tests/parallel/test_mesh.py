"""Batches and states on eight fake devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from bap_jax.errors import SettingError
from bap_jax.parallel import batch_sharding, check_batch_size, data_mesh, jit_step, replicate, replicated, shard_batch
from bap_jax.types import Batch


def batch_of(size):
    images = np.arange(size * 6, dtype=np.float32).reshape(size, 2, 3)
    return Batch(images, np.zeros(size, np.int32), np.arange(size, dtype=np.int32), np.ones(size, np.float32))


def test_mesh_has_one_auto_axis_over_all_devices():
    mesh = data_mesh()
    assert mesh.axis_names == ("batch",) and mesh.axis_types == (AxisType.Auto,)
    assert set(mesh.devices.flat) == set(jax.devices()) and mesh.size == 8


def test_mesh_of_some_devices():
    assert list(data_mesh(2).devices.flat) == jax.devices()[:2]
    assert list(data_mesh(jax.devices()[3:5]).devices.flat) == jax.devices()[3:5]


@pytest.mark.parametrize("count", [0, 9])
def test_mesh_of_devices_that_are_not_there(count):
    with pytest.raises(SettingError, match=f"devices = {count}: expected 1 to 8"):
        data_mesh(count)


def test_batch_is_spread_in_order():
    batch = batch_of(16)
    spread = shard_batch(data_mesh(), batch)
    assert type(spread) is Batch
    for leaf, host in zip(spread, batch, strict=True):
        assert leaf.sharding == batch_sharding(data_mesh())
        assert [shard.device for shard in leaf.addressable_shards] == jax.devices()
        for i, shard in enumerate(leaf.addressable_shards):
            np.testing.assert_array_equal(shard.data, host[2 * i : 2 * i + 2])


@pytest.mark.parametrize(("size", "near"), [(100, "96 or 104"), (3, "8$"), (0, "8$")])
def test_batch_that_does_not_divide(size, near):
    with pytest.raises(SettingError, match=f"batch_size = {size}: expected a multiple of the 8 devices, such as {near}"):
        shard_batch(data_mesh(), batch_of(size))
    with pytest.raises(SettingError, match=f"--batch-size = {size}: .*{near}"):
        check_batch_size(size, data_mesh(), "--batch-size")


def test_batch_of_unequal_arrays():
    for other in (np.zeros(16), np.float32(1)):
        with pytest.raises(SettingError, match="one first dimension"):
            shard_batch(data_mesh(2), {"images": np.zeros((8, 2)), "labels": other})


def test_spread_batch_shares_no_memory_with_the_host():
    for mesh in (data_mesh(1), data_mesh(2)):
        memory = np.empty(4 * 64 * 64 * 4 + 64, np.uint8)
        start = -memory.ctypes.data % 64  # memory that is aligned to 64 bytes is what jax would use in place
        host = memory[start : start + 4 * 64 * 64 * 4].view(np.float32).reshape(4, 64, 64)
        host[:] = 1
        spread = jax.block_until_ready(shard_batch(mesh, host))
        host[:] = 2
        assert float(spread.max()) == 1


def test_replicated_state_outlives_donation():
    state = {"w": jnp.ones((64, 64)), "key": jax.random.key(3), "mask": np.array([True, False]), "step": 0}
    for mesh in (data_mesh(1), data_mesh()):
        copies = replicate(mesh, state)
        assert all(leaf.sharding == replicated(mesh) for leaf in jax.tree.leaves(copies))
        assert copies["mask"].dtype == bool and copies["key"].dtype == state["key"].dtype
        step = jit_step(lambda s, b: ({**s, "w": s["w"] + b.mean()}, {}), mesh)
        after, _ = step(copies, shard_batch(mesh, np.ones(8, np.float32)))
        assert copies["w"].is_deleted()
        assert all(np.all(shard.data == 2) for shard in after["w"].addressable_shards)
        assert np.all(state["w"] == 1) and state["mask"].tolist() == [True, False]
        for key in (state["key"], after["key"]):
            assert jax.random.key_data(key).tolist() == [0, 3]


def test_a_step_takes_global_means_and_compiles_once():
    traces = []

    def step(state, batch):
        traces.append(None)
        loss = (batch.images * batch.weight[:, None, None]).mean()
        return state + loss, {"loss": loss}

    results = {}
    for mesh in (None, data_mesh(1), data_mesh(8)):
        compiled = jit_step(step, mesh)
        state = jnp.float32(0) if mesh is None else replicate(mesh, jnp.float32(0))
        for _ in range(3):
            state, metrics = compiled(state, batch_of(16) if mesh is None else shard_batch(mesh, batch_of(16)))
        results[mesh and mesh.size] = float(state)
        assert mesh is None or (state.sharding == replicated(mesh) and metrics["loss"].sharding == replicated(mesh))
    assert len(traces) == 3  # one for each of the three
    assert results == {None: 142.5, 1: 142.5, 8: 142.5}
