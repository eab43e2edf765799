"""Pruners that train scores: initialisation and gradients by hand, frozen weights, and a planted mask that is found."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.channels import Family, Groups, Layer, Slice
from bap_jax.mathematics.group_masks import Structures
from bap_jax.pruners.edge_popup import edge_popup
from bap_jax.pruners.hydra import hydra

KEY = jax.random.key(0)


def network():
    first, second = (jax.random.normal(jax.random.key(i), (6, 10)) for i in range(2))
    bn = {"scale": jnp.full(10, 1.5), "bias": jnp.full(10, 0.5)}
    return {"fc1": {"kernel": first, "bias": jnp.full(10, 0.1)}, "bn": bn, "fc2": {"kernel": second.T}}


def test_scores_of_two_weights_by_hand():
    """HYDRA's scaled initialisation, and the gradient of a pruned score: w · g · sgn(s)."""
    pruner = hydra(0.5)
    trainable, state = jax.jit(pruner.init)(KEY, {"w": jnp.array([[0.5], [-2.0]])})  # fan-in 2
    root = np.sqrt(3.0)
    np.testing.assert_allclose(trainable["scores"]["w"], [[root / 4], [-root]], rtol=1e-6)
    effective, pull = jax.vjp(lambda t: pruner.effective(t, state), trainable)
    assert effective["w"].tolist() == [[0.0], [-2.0]]
    gradient = pull({"w": jnp.array([[3.0], [7.0]])})[0]
    np.testing.assert_allclose(gradient["scores"]["w"], [[0.5 * 3.0 * 1], [-2.0 * 7.0 * -1]])


def test_hydra_trains_scores_and_batch_norm_only():
    pruner = hydra(0.7)
    trainable, state = jax.jit(pruner.init)(KEY, network())
    gradient = jax.grad(lambda t: sum(jnp.sum(jnp.sin(w)) for w in jax.tree.leaves(pruner.effective(t, state))))(trainable)
    moved = jax.tree.map(lambda t, g: t + g, trainable, gradient)
    params, masks = pruner.finish(moved, state)
    before = network()
    np.testing.assert_array_equal(params["fc1"]["bias"], before["fc1"]["bias"])
    assert not np.allclose(params["bn"]["scale"], before["bn"]["scale"]) and not np.allclose(params["bn"]["bias"], 0.5)
    for layer in ("fc1", "fc2"):
        mask = masks[layer]["kernel"]
        assert int(mask.sum()) == 18
        np.testing.assert_array_equal(params[layer]["kernel"], np.where(mask, before[layer]["kernel"], 0))
    assert trainable["weights"]["fc1"]["bias"].shape == () and trainable["scores"]["bn"]["scale"].shape == ()


def test_edge_popup_trains_scores_only():
    pruner = edge_popup(0.5)
    trainable, state = jax.jit(pruner.init)(KEY, network())
    kernel = np.asarray(network()["fc1"]["kernel"])
    np.testing.assert_allclose(state.weights["fc1"]["kernel"], np.sign(kernel) * np.sqrt(2 / 6), rtol=1e-6)
    scores = np.abs(trainable["scores"]["fc1"]["kernel"])
    assert scores.max() <= 1 / np.sqrt(6) and scores.max() > 0.8 / np.sqrt(6)
    assert all(leaf.shape == () for leaf in jax.tree.leaves(trainable["weights"]))
    params, masks = pruner.finish(trainable, state)
    np.testing.assert_array_equal(params["bn"]["scale"], network()["bn"]["scale"])
    kept = np.zeros(60, bool)
    kept[np.argsort(-scores.ravel(), kind="stable")[:30]] = True
    np.testing.assert_array_equal(np.ravel(masks["fc1"]["kernel"]), kept)


@pytest.mark.parametrize("make", [hydra, edge_popup])
def test_a_planted_mask_is_found_by_gradients_alone(make):
    """The loss asks for some of the frozen weights, and none of the others: scores have to find which."""
    pruner = make(0.8)
    drawn = jax.random.normal(jax.random.key(3), (10, 5))
    trainable, state = jax.jit(pruner.init)(KEY, {"w": drawn + jnp.sign(drawn)})
    planted = jnp.zeros(50, bool).at[jax.random.permutation(jax.random.key(4), 50)[:10]].set(True).reshape(10, 5)
    target = jnp.where(planted, state.weights["w"], 0)
    optimizer = optax.sgd(0.05)
    moments = optimizer.init(trainable)

    @jax.jit
    def one(trainable, moments, state):
        gradient = jax.grad(lambda t: jnp.sum((pruner.effective(t, state)["w"] - target) ** 2))(trainable)
        updates, moments = optimizer.update(gradient, moments)
        trainable = optax.apply_updates(trainable, updates)
        return *pruner.update(KEY, jnp.int32(0), trainable, None, state), moments

    for _ in range(300):
        trainable, state, moments = one(trainable, moments, state)
    np.testing.assert_array_equal(state.masks["w"], planted)
    np.testing.assert_array_equal(pruner.finish(trainable, state)[0]["w"], target)


@pytest.mark.parametrize("make", [hydra, partial(hydra, scope="global"), edge_popup])
def test_given_masks_bound_it(make):
    params = network()
    bound = jax.tree.map(lambda leaf: jnp.arange(leaf.size).reshape(leaf.shape) % 2 == 0 if leaf.ndim == 2 else True, params)
    bound = jax.tree.map(jnp.asarray, bound)
    pruner = make(0.7)
    trainable, state = jax.jit(pruner.init)(KEY, params, bound)
    masks = pruner.finish(trainable, state)[1]
    assert sum(int(mask.sum()) for mask in jax.tree.leaves(masks) if mask.ndim) == 36
    assert all(jax.tree.leaves(jax.tree.map(lambda m, b: bool((m <= b).all()), masks, bound)))
    assert not state.weights["fc1"]["kernel"][~bound["fc1"]["kernel"]].any()


def test_refusals():
    with pytest.raises(SettingError, match="sparsity"):
        hydra(-0.1)
    with pytest.raises(SettingError, match="scope = 'wide'"):
        hydra(0.5, scope="wide")


def test_scores_of_coupled_filters_take_biases_and_batch_norm_along():
    index = np.arange(4)[:, None]
    places = [("a", 1, "makes"), ("bias", 0, "follows"), ("bn/scale", 0, "scales"), ("bn/bias", 0, "follows"), ("b", 0, "reads")]
    family = Family("a", tuple(Slice("params", path, axis, index, role) for path, axis, role in places))
    layers = (Layer("a", 1, 0, ("bias", "bn/bias"), ("bn/scale",)), Layer("b", 1, 0, free_outputs=False))
    structures = Structures(Groups((family,), layers), scope="coupled")
    random = np.random.default_rng(0)
    params = {name: jnp.asarray(random.normal(size=shape)) for name, shape in (("a", (3, 4)), ("b", (4, 2)), ("bias", (4,)))}
    params |= {"bn": {"scale": jnp.ones(4), "bias": jnp.full(4, 0.5)}}
    pruner = hydra(0.5, structures=structures)
    trainable, state = pruner.init(jax.random.key(0), params)
    assert trainable["scores"]["bias"].ndim == 0 and trainable["scores"]["a"].shape == (3, 4)
    trainable["scores"]["a"] = jnp.zeros((3, 4)).at[0].set(jnp.array([1.0, -3.0, 2.0, -0.5]))
    found, masks = pruner.finish(trainable, state)
    kept = [False, True, True, False]
    for leaf, along in (("a", 0), ("b", 1)):
        assert np.asarray(found[leaf]).any(along).tolist() == np.asarray(masks[leaf]).any(along).tolist() == kept
    assert (found["bias"] != 0).tolist() == (found["bn"]["scale"] != 0).tolist() == (found["bn"]["bias"] != 0).tolist() == kept
    slopes = jax.grad(lambda trained: pruner.effective(trained, state)["a"].sum())(trainable)["scores"]["a"]
    np.testing.assert_allclose(slopes[0], params["a"][0] * jnp.array([1.0, -1.0, 1.0, -1.0]))  # of what is pruned, too
