"""Several CPU devices with few threads are warned of before anything is computed on them, whoever made the mesh."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from told import told

from bap_jax import budgets, losses, models, parallel, pruners, threads
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch

REMEDY = "NPROC=32 .* before jax makes its first device"


@pytest.fixture
def narrow(monkeypatch):
    """Two cores, and nobody has widened XLA's threads."""
    monkeypatch.delenv("NPROC")
    monkeypatch.setattr(threads, "cores", lambda: 2)


@pytest.fixture
def quiet():
    """Whatever warns fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    ("devices", "nproc", "count", "warns"),
    [
        (8, None, 2, True),
        (2, None, 2, True),  # as many threads as devices are too few
        (2, None, 8, False),
        (8, None, 64, False),
        (1, None, 1, False),
        (8, "8", 2, False),
        (8, "2", 64, True),
        (8, "many", 2, True),
    ],
)
def test_when_it_warns(devices, nproc, count, warns, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: count)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads.warn_of_few_threads(devices, {} if nproc is None else {"NPROC": nproc})
    assert bool(caught) == warns
    if warns:
        assert f"NPROC={threads.threads_for(devices)}" in str(caught[0].message) and caught[0].category is UserWarning


def own_mesh():
    return Mesh(np.array(jax.devices()), ("batch",))


@pytest.mark.parametrize(
    "use",
    [
        lambda: parallel.data_mesh(),
        lambda: parallel.replicate(own_mesh(), {"w": np.ones(2)}),
        lambda: parallel.jit_step(lambda state, batch: (state, batch), own_mesh()),
    ],
    ids=["data_mesh", "replicate", "jit_step"],
)
def test_what_bap_parallel_offers_warns(use, narrow):
    with pytest.warns(UserWarning, match=REMEDY):
        use()


def test_one_device_and_wide_pools_are_quiet(quiet, monkeypatch):
    parallel.replicate(parallel.data_mesh(), np.ones(2))  # NPROC is set for these tests
    monkeypatch.delenv("NPROC")
    monkeypatch.setattr(threads, "cores", lambda: 2)
    parallel.data_mesh(1)


def pieces(axis_name=None):
    """A step, its state and a batch on one device."""
    model = models.from_function(
        lambda key, x: {"w": jax.random.normal(key, (x.shape[-1], 3))}, lambda params, x: x @ params["w"]
    )
    slots = optax.sgd(0.1), pruners.dense(), budgets.none(), losses.clean()
    images = jnp.ones((8, 4))
    state = init_state(model, *slots, key=jax.random.key(0), images=images, info=told(8))
    batch = Batch(images, jnp.arange(8) % 3, jnp.arange(8), jnp.ones(8))
    return make_train_step(model.apply, *slots, axis_name=axis_name), state, batch


def test_the_first_step_over_a_mesh_of_the_users_own_warns(narrow):
    step, state, batch = pieces()
    mesh = own_mesh()
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("batch")))
    with pytest.warns(UserWarning, match=REMEDY):
        jax.jit(step).trace(jax.device_put(state, NamedSharding(mesh, PartitionSpec())), spread)


def test_the_first_step_over_a_mapped_axis_warns(narrow):
    step, state, batch = pieces("i")
    with pytest.warns(UserWarning, match=REMEDY):
        jax.make_jaxpr(step, axis_env=[("i", 8)])(state, batch)


def test_a_step_on_one_device_is_quiet(narrow, quiet):
    step, state, batch = pieces()
    jax.jit(step).trace(state, batch)
