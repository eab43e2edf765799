"""Checkpoints come back bit for bit, on any devices, or say which leaf does not fit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import bap_jax
from bap_jax.checkpoint import Checkpoints, Network, as_target, restore_network
from bap_jax.errors import CheckpointError, SettingError


class State(NamedTuple):
    step: Any
    params: Any
    masks: Any
    opt_state: Any
    budget: Any
    key: Any
    extras: Any


def make_state(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {"conv": {"kernel": jax.random.normal(keys[0], (3, 4))}, "head": jax.random.normal(keys[1], (4,), jnp.bfloat16)}
    optimizer = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adam)(1e-3))
    _, opt_state = optimizer.update(params, optimizer.init(params), params)
    masks = {"conv": {"kernel": params["conv"]["kernel"] > 0}, "head": jnp.array(True)}
    extras = [(), {}, 7, 0.1, True, np.arange(3, dtype=np.uint8), (jnp.float32(jnp.nan), jnp.float32(-0.0))]
    return State(jnp.int32(seed), params, masks, opt_state, jnp.arange(8.0), keys[2], extras)


def bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(wanted), strict=True):
        assert type(a) is type(b), path
        assert not hasattr(b, "dtype") or a.dtype == b.dtype, path
        assert bits(a) == bits(b), path


def mesh_sharding(devices, *spec):
    mesh = jax.make_mesh((devices,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return NamedSharding(mesh, PartitionSpec(*spec))


def test_a_whole_state_comes_back_bit_for_bit(tmp_path):
    state = make_state(3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
        assert_same(checkpoints.restore(make_state(0)), state)
    abstract = jax.eval_shape(lambda: make_state(0)._replace(extras=()))
    with Checkpoints(tmp_path) as checkpoints:  # another process's view: nothing is known but the shapes
        restored = checkpoints.restore(as_target(abstract._replace(extras=make_state(0).extras)))
    assert_same(restored, state)
    assert jax.random.normal(restored.key) == jax.random.normal(state.key)


def test_the_arrays_may_be_donated_at_once(tmp_path):
    step = jax.jit(lambda s: {"a": s["a"] + 1}, donate_argnums=0)
    state = {"a": jnp.zeros((500, 1000))}
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        for i in range(5):
            checkpoints.save(i, state)
            for _ in range(10):
                state = step(state)
        for i in range(5):
            assert np.all(checkpoints.restore({"a": jax.ShapeDtypeStruct((500, 1000), jnp.float32)}, i)["a"] == 10 * i)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_saved_on_four_devices_restored_on_others(tmp_path, devices):
    values = {"table": jnp.arange(16.0).reshape(8, 2), "key": jax.random.key(5), "mask": jnp.arange(4) > 1}
    state = jax.device_put(values, {"table": mesh_sharding(4, "batch"), "key": mesh_sharding(4), "mask": mesh_sharding(4)})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    spread = mesh_sharding(devices, "batch")
    target = {**as_target(values, mesh_sharding(devices)), "table": jax.ShapeDtypeStruct((8, 2), jnp.float32, sharding=spread)}
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(target)
    assert_same(restored, values)
    assert restored["table"].sharding == spread
    assert restored["key"].sharding.is_fully_replicated and len(restored["key"].sharding.device_set) == devices


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s._replace(params={**s.params, "conv": {"kernel": jnp.zeros((4, 3))}}),
            r"step 1 .*does not fit at params/conv/kernel: the checkpoint has float32\[3,4\], expected float32\[4,3\]",
        ),
        (
            lambda s: s._replace(masks={**s.masks, "head": jnp.uint8(1)}),
            r"masks/head: the checkpoint has bool\[\], expected uint8\[\]",
        ),
        (
            lambda s: s._replace(params={**s.params, "extra": jnp.zeros(2)}),
            r"params/extra: the checkpoint has no such leaf, expected float32\[2\]",
        ),
        (
            lambda s: s._replace(params={"conv": s.params["conv"]}),
            r"params/head: the checkpoint has bfloat16\[4\], expected no such leaf",
        ),
        (
            lambda s: s._replace(key=jax.random.key(0, impl="rbg")),
            r"key: the checkpoint has key<fry>\[\], expected key<rbg>\[\] \(a random key of another implementation",
        ),
        (lambda s: s._replace(key=jax.random.PRNGKey(0)), r"key: the checkpoint has key<fry>\[\], expected uint32\[2\]$"),
        (lambda s: s._replace(step=1), r"step: the checkpoint has int32\[\], expected int$"),
        (
            lambda s: s._replace(step=jnp.int32(1), opt_state=optax.adam(1e-3).init(s.params)),
            r"opt_state/0/count: the checkpoint has no such leaf, expected int32\[\]",
        ),
    ],
)
def test_the_first_leaf_that_differs_is_named(saved, change, message):
    with Checkpoints(saved, read_only=True) as checkpoints, pytest.raises(CheckpointError, match=message):
        checkpoints.restore(change(make_state(0)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, make_state(1))
    return folder


def test_uint8_is_not_cast_into_a_mask(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"mask": jnp.ones(3, jnp.uint8)})
        with pytest.raises(CheckpointError, match=r"mask: the checkpoint has uint8\[3\], expected bool\[3\]"):
            checkpoints.restore({"mask": jnp.ones(3, bool)})


def run_metrics(folder, metrics, **settings):
    with Checkpoints(folder, **settings) as checkpoints:
        for step, metric in metrics.items():
            checkpoints.save(step, {"w": jnp.full(2, step)}, metric=metric)
    with Checkpoints(folder, **settings) as checkpoints:  # as the next process finds them
        kept, best = checkpoints.steps(), checkpoints.best_step()
        for step in kept:
            assert checkpoints.restore({"w": jnp.zeros(2, jnp.int32)}, step)["w"].tolist() == [step] * 2
        assert checkpoints.latest_step() == max(metrics)
    assert sorted(int(name) for name in os.listdir(folder)) == kept  # and no other files
    return kept, best


def test_the_last_few_and_the_best_are_kept(tmp_path):
    metrics = {1: None, 2: 0.5, 3: 0.9, 4: 0.1, 5: 0.9, 6: 0.2, 7: None, 8: 0.3}
    assert run_metrics(tmp_path / "max", metrics, keep=2) == ([5, 7, 8], 5)  # the later of equals
    assert run_metrics(tmp_path / "min", metrics, keep=2, mode="min") == ([4, 7, 8], 4)
    assert run_metrics(tmp_path / "none", dict.fromkeys(range(4)), keep=1) == ([3], None)
    assert run_metrics(tmp_path / "rising", {i: float(i) for i in range(4)}, keep=1) == ([3], 3)


def test_best_is_known_to_the_next_process(tmp_path):
    run_metrics(tmp_path, {1: 0.9, 2: 0.1, 3: 0.1}, keep=1)
    assert run_metrics(tmp_path, {4: 0.2, 5: 0.3}, keep=1) == ([1, 5], 1)


def test_metadata_comes_back(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(np.int64(4), {"w": jnp.ones(1)}, metric=jnp.float32(0.5), metadata={"phase": 2, "names": ("a",)})
        checkpoints.save(5, {"w": jnp.ones(1)})
        assert checkpoints.metadata(4) == {"phase": 2, "names": ["a"], "step": 4, "metric": 0.5}
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.metadata() == {"step": 5, "metric": None}


def test_going_on_from_an_earlier_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"w": jnp.float32(step)}, metric=step)
        with pytest.raises(SettingError, match="step = 2: expected a step after the last saved one, 3"):
            checkpoints.save(2, {"w": jnp.float32(0)})
        checkpoints.truncate_after(1)
        assert (checkpoints.steps(), checkpoints.best_step()) == ([1], 1)
        checkpoints.save(2, {"w": jnp.float32(20)})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        assert checkpoints.restore({"w": jnp.float32(0)})["w"] == 20


def test_refusals(tmp_path):
    for settings, message in [({"keep": 0}, "keep = 0: expected at least 1"), ({"mode": "best"}, "mode = 'best'")]:
        with pytest.raises(SettingError, match=message):
            Checkpoints(tmp_path, **settings)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="expected a folder that can be written"):
        Checkpoints(tmp_path / "file" / "x")
    with Checkpoints(tmp_path / "run") as checkpoints:
        for metric in (float("nan"), float("inf")):
            with pytest.raises(SettingError, match="expected a finite number or None"):
                checkpoints.save(1, {"w": jnp.ones(1)}, metric=metric)
        with pytest.raises(SettingError, match="state/name = 'conv': expected an array"):
            checkpoints.save(1, {"name": "conv"})
        with pytest.raises(SettingError, match=r"metadata.when = .*expected a value that JSON can hold"):
            checkpoints.save(1, {"w": jnp.ones(1)}, metadata={"when": object()})
        with pytest.raises(CheckpointError, match="there is no checkpoint in"):
            checkpoints.restore({"w": jnp.ones(1)})
        checkpoints.save(1, {"w": jnp.ones(1)})
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 2 .* has the steps \[1\]"):
            checkpoints.restore({"w": jnp.ones(1)}, 2)
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints, pytest.raises(SettingError, match="read_only"):
        checkpoints.save(2, {"w": jnp.ones(1)})


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpoints("runs/x/checkpoints") as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(1)}, network=Network({"w": jnp.ones(1)}, {"w": True}, {}))
        monkeypatch.chdir("/")
        checkpoints.save(2, {"w": jnp.ones(1)})
    assert sorted(os.listdir(tmp_path / "runs/x/checkpoints")) == ["1", "2"]
    monkeypatch.chdir(tmp_path)
    assert restore_network("runs/x", step=1).params["w"] == 1


def test_an_error_while_writing_is_raised_and_forgotten(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(1)})
        checkpoints.wait()
        monkeypatch.setattr(checkpoints._orbax, "_finalize_checkpoint", lambda step: 1 / 0)
        checkpoints.save(2, {"w": jnp.ones(1)})
        with pytest.raises(ZeroDivisionError):
            checkpoints.wait()
        assert checkpoints.latest_step() == 1
        monkeypatch.undo()


def test_network_alone(tmp_path):
    params = {"conv": {"kernel": jnp.array([[1.5, 0.0]])}, "layers": [jnp.ones(2, jnp.bfloat16), (jnp.zeros(1),)]}
    masks = {"conv": {"kernel": jnp.array([[True, False]])}, "layers": [True, (np.bool_(True),)]}
    model_state = {"batch_stats": {"mean": jax.device_put(jnp.arange(8.0), mesh_sharding(4, "batch"))}}
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(1)}, network=Network(params, masks, model_state), metric=0.9)
        checkpoints.save(2, {"w": jnp.ones(1)}, network=Network(params, masks, {}), metric=0.1)
        checkpoints.save(3, {"w": jnp.ones(1)})
    best = restore_network(tmp_path, best=True)
    assert best.params["conv"]["kernel"].tolist() == [[1.5, 0.0]]
    assert best.params["layers"][0].dtype == jnp.bfloat16 and best.params["layers"][1][0].tolist() == [0]
    assert [leaf.dtype for leaf in jax.tree.leaves(best.masks)] == [bool] * 3
    assert best.masks["conv"]["kernel"].tolist() == [[True, False]]
    assert best.model_state["batch_stats"]["mean"].tolist() == list(range(8))
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(best))
    with pytest.raises(CheckpointError, match=r"step 3 .* was saved without a network"):
        restore_network(tmp_path)
    with pytest.raises(SettingError, match="step = 1: expected None together with best=True"):
        restore_network(tmp_path / "checkpoints", best=True, step=1)
    with pytest.raises(CheckpointError, match="no such folder"):
        restore_network(tmp_path / "elsewhere")


def test_looking_leaves_an_unfinished_save_alone(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(1)}, network=Network({"w": jnp.ones(1)}, {"w": True}, {}))
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    restore_network(tmp_path)
    assert unfinished.exists()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
        checkpoints.save(2, {"w": jnp.ones(1)})
    assert not unfinished.exists()


ROOT = Path(bap_jax.__file__).parents[1]
SAVER = """
import sys
import jax, jax.numpy as jnp
from bap_jax.checkpoint import Checkpoints, Network
with Checkpoints(sys.argv[1], keep=2) as checkpoints:
    step = (checkpoints.latest_step() or 0) + 1
    print("ready", flush=True)
    while True:
        state = {"step": jnp.int32(step), "w": jnp.full((300, 300), step, jnp.float32), "key": jax.random.key(step)}
        checkpoints.save(step, state, network=Network({"w": state["w"]}, {"w": state["w"] > 0}, {}), metric=-abs(step - 5))
        print(step, flush=True)
        step += 1
"""


def test_killed_while_saving(tmp_path):
    pause = random.Random(0)
    target = {"step": jnp.int32(0), "w": jnp.zeros((300, 300)), "key": jax.random.key(0)}
    folder, before = tmp_path / "checkpoints", 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for _ in range(pause.randrange(2, 9)):
            process.stdout.readline()
        time.sleep(pause.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0].split()
        with Checkpoints(folder, read_only=True) as checkpoints:
            latest = checkpoints.latest_step()
            assert latest is not None and latest > before and latest >= max(map(int, said), default=0) - 1
            for step in checkpoints.steps():
                state = checkpoints.restore(target, step)
                assert int(state["step"]) == step and np.all(state["w"] == step)
                assert bits(state["key"]) == bits(jax.random.key(step))
                assert np.all(restore_network(folder, step=step).params["w"] == step)
            assert latest < 6 or 5 in checkpoints.steps()  # the best
            before = latest
    assert before > 8
