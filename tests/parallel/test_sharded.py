"""A state that is spread over eight fake devices: no device has all of it, and it trains as a whole one does."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from told import told

from bap_jax import budgets, losses, models, pruners
from bap_jax.checkpoint import Checkpoints
from bap_jax.data import digits
from bap_jax.errors import SettingError
from bap_jax.mathematics.schedules import Ramp
from bap_jax.parallel import data_mesh, jit_step, shard_batch, shard_state, sharded_init, sharding_of
from bap_jax.runs import loop
from bap_jax.runs.loop import train
from bap_jax.runs.run import prepare
from bap_jax.runs.settings import Settings
from bap_jax.runs.signals import Asked, Interrupted
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch

SETTINGS = Settings(
    budget="none",
    batch_size=32,
    steps=6,
    log_every=1,
    validations=1,
    validation_epsilon="0",
    validation_limit=32,
    ramp_end=0.5,
    optimizer="sgd",
)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((256, 128), ("batch",)),
        ((3, 3, 64, 512), (None, None, None, "batch")),
        ((100, 256), (None, "batch")),
        ((999, 999), ()),  # divides nowhere
        ((64, 64), ()),  # small
        ((), ()),
    ],
)
def test_the_longest_axis_that_divides_is_cut(shape, spec):
    for dtype in (jnp.float32, bool):  # masks lie as their weights do
        assert sharding_of(data_mesh(), jax.ShapeDtypeStruct(shape, dtype)).spec == PartitionSpec(*spec)


def test_a_state_is_made_in_parts_and_what_lies_right_stays():
    mesh = data_mesh()
    state = sharded_init(mesh, lambda: {"w": jax.random.normal(jax.random.key(3), (256, 128)), "key": jax.random.key(1)})
    assert {shard.data.shape for shard in state["w"].addressable_shards} == {(32, 128)}
    np.testing.assert_array_equal(state["w"], jax.random.normal(jax.random.key(3), (256, 128)))
    placed = shard_state(mesh, state)
    assert placed["w"] is state["w"] and jax.random.key_data(placed["key"]).tolist() == [0, 1]


def test_a_sharded_step_is_the_whole_one_and_keeps_its_shards():
    model = models.from_function(
        lambda key, x: {"a": jax.random.normal(key, (8, 256)) / 3, "b": jax.random.normal(key, (256, 128)) / 16},
        lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"],
    )
    slots = optax.sgd(0.1, momentum=0.9), pruners.magnitude(Ramp(0.0, 0.5, 0, 2, 1)), budgets.none(), losses.clean()
    batch = Batch(jax.random.uniform(jax.random.key(0), (16, 8)), jnp.arange(16), jnp.arange(16), jnp.ones(16))
    init = lambda: init_state(model, *slots, key=jax.random.key(1), images=batch.images, info=told(16))  # noqa: E731
    step, mesh = make_train_step(model.apply, *slots), data_mesh()
    whole, spread = jax.jit(init)(), sharded_init(mesh, init)
    lies, part = jax.tree.map(lambda leaf: leaf.sharding, spread), shard_batch(mesh, jax.device_get(batch))
    alone, together = jit_step(step), jit_step(step, mesh, shard=True)
    for _ in range(2):
        whole, _ = alone(whole, batch)
        spread, _ = together(spread, part)
    for sharding, leaf in zip(jax.tree.leaves(lies), jax.tree.leaves(spread), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    momentum = jax.tree.leaves(spread.opt_state)[-1]
    assert momentum.shape == (256, 128) and momentum.addressable_shards[0].data.shape == (32, 128)
    jax.tree.map(np.testing.assert_array_equal, whole.prune.masks, spread.prune.masks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole.trainable, spread.trainable)


@pytest.mark.soak
def test_a_sharded_run_is_that_of_one_device_and_goes_on_on_other_devices(monkeypatch, tmp_path):
    """Its weights [64, 256] and [256, 128], their masks and momenta have parts everywhere."""
    splits = digits()
    run = prepare(SETTINGS, splits, 8, shard=True)
    state = run.first_state(0, run.recipe(), run.info())
    cut = [leaf for leaf in jax.tree.leaves(state) if len({str(shard.index) for shard in leaf.addressable_shards}) == 8]
    assert len(cut) == 2 * 3 and all(leaf.addressable_shards[0].data.size == leaf.size // 8 for leaf in cut)

    trained = train(SETTINGS, tmp_path / "whole", splits=splits)
    asked = itertools.count(1)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="after step 3 of 6"):
        patch.setattr(loop, "agreed", lambda answer, mesh: answer)
        patch.setattr(Asked, "__call__", lambda self: next(asked) == 3)
        train(SETTINGS, tmp_path / "run", splits=splits, devices=8, shard=True)
    again = train(SETTINGS, tmp_path / "run", splits=splits, devices=2, shard=True, resume=True)
    assert again.resumed_from == 3 and again.sparsity == trained.sparsity
    networks = []
    for name in ("whole", "run"):
        with Checkpoints(tmp_path / name / "checkpoints", read_only=True) as found:
            networks.append(found.restore_network())
    jax.tree.map(np.testing.assert_array_equal, networks[0].masks, networks[1].masks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), networks[0].params, networks[1].params)


def test_one_device_has_nothing_to_spread_over():
    with pytest.raises(SettingError, match="--shard = 'state': expected none on a single device"):
        prepare(SETTINGS, digits(), 1, shard=True)
