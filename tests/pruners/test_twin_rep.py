"""TwinRep: the product and its gradient, the global cut, and folding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.pruners.twin_rep import twin_rep

KEY = jax.random.key(0)
PARAMS = {
    "a": jax.random.normal(jax.random.key(1), (6, 5)),
    "b": 0.1 * jax.random.normal(jax.random.key(2), (4, 5)),
    "bias": jnp.ones(5),
}


def test_the_weight_is_the_product_until_it_is_folded():
    pruner = twin_rep(0.8, begin_step=7)
    trainable, state = jax.jit(pruner.init)(KEY, PARAMS)
    first, second = trainable["weights"], trainable["scores"]
    np.testing.assert_array_equal(first["a"], PARAMS["a"])
    assert float(jnp.abs(second["a"]).max()) <= 1 / np.sqrt(6) and second["bias"].shape == ()
    effective, pull = jax.vjp(lambda t: pruner.effective(t, state), trainable)
    np.testing.assert_array_equal(effective["a"], first["a"] * second["a"])
    np.testing.assert_array_equal(effective["bias"], PARAMS["bias"])
    gradient = pull(jax.tree.map(jnp.ones_like, effective))[0]
    np.testing.assert_array_equal(gradient["weights"]["a"], second["a"])
    np.testing.assert_array_equal(gradient["scores"]["a"], first["a"])
    assert (
        [step for step in range(20) if pruner.due(step, state)] == [7]
        and not pruner.settled(7, state)
        and pruner.settled(8, state)
    )

    trainable, state = jax.jit(pruner.update)(KEY, jnp.int32(7), trainable, None, state)
    product = np.concatenate([np.abs(effective[name]).ravel() for name in "ab"])
    largest = np.zeros(50, bool)
    largest[np.argsort(-product, kind="stable")[:10]] = True
    found = np.concatenate([np.ravel(state.masks[name]) for name in "ab"])
    np.testing.assert_array_equal(found, largest)
    params, masks = pruner.finish(trainable, state)
    np.testing.assert_array_equal(params["a"], np.where(masks["a"], effective["a"], 0))
    gradient = jax.grad(lambda t: pruner.effective(t, state)["a"].sum())(trainable)
    assert not gradient["weights"]["a"][~masks["a"]].any()


def test_the_root_begins_as_the_network_it_is_given():
    trainable, state = twin_rep(0.5, begin_step=0, initial="root").init(KEY, PARAMS)
    params, _ = twin_rep(0.5, begin_step=0).finish(trainable, state)
    jax.tree.map(lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-6), params, PARAMS)


def test_filters_compete_over_the_network_and_each_layer_keeps_one():
    pruner = twin_rep(0.8, begin_step=0, structure="filter", initial="root")
    trainable, state = pruner.init(KEY, PARAMS)
    _, state = jax.jit(pruner.update)(KEY, jnp.int32(0), trainable, None, state)
    norms = {name: np.linalg.norm(PARAMS[name], axis=0) for name in "ab"}
    for name in "ab":  # 2 of 10 filters: b's are all smaller, and one of them is kept all the same
        expected = np.arange(5) == norms[name].argmax()
        np.testing.assert_array_equal(state.masks[name], np.broadcast_to(expected, PARAMS[name].shape))


def test_given_masks_bound_it():
    bound = jax.tree.map(lambda leaf: jnp.arange(leaf.size).reshape(leaf.shape) % 2 == 0, PARAMS) | {"bias": jnp.bool_(True)}
    for structure in ("irregular", "filter"):
        pruner = twin_rep(0.2, begin_step=0, structure=structure)
        trainable, state = jax.jit(pruner.init)(KEY, PARAMS, bound)
        _, state = jax.jit(pruner.update)(KEY, jnp.int32(0), trainable, None, state)
        assert all(bool((state.masks[name] <= bound[name]).all()) and state.masks[name].any() for name in "ab")


@pytest.mark.parametrize("wrong", [{"sparsity": -1}, {"begin_step": -1}, {"structure": "column"}, {"initial": "zeros"}], ids=str)
def test_refusals(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        twin_rep(**{"sparsity": 0.5, "begin_step": 3} | wrong)
