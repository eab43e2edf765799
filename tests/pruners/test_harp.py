"""HARP: the gradient of the rate by hand, its penalty, and the sparsity it is driven to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.pruners.harp import harp

KEY = jax.random.key(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_gradients_of_two_weights_by_hand():
    pruner = harp(0.5, frequency=10)
    weights = {"w": jnp.array([[0.5], [-2.0]])}
    trainable, state = pruner.init(KEY, weights)
    rate = float(trainable["rates"]["w"])
    assert sigmoid(rate) * 0.95 + 0.05 == pytest.approx(0.5)  # k_min is a tenth of the density
    effective, pull = jax.vjp(lambda t: pruner.effective(t, state), trainable)
    assert effective["w"].tolist() == [[0.0], [-2.0]]
    gradient = pull({"w": jnp.array([[3.0], [7.0]])})[0]
    by_rate = (0.5 * 3.0 - 2.0 * 7.0) * sigmoid(rate) * (1 - sigmoid(rate)) * 0.95
    assert float(gradient["rates"]["w"]) == pytest.approx(by_rate, rel=1e-5)
    np.testing.assert_allclose(gradient["scores"]["w"], [[0.5 * 3.0], [2.0 * 7.0]])


def test_the_penalty_is_the_excess_of_what_is_kept():
    pruner = harp(0.5, frequency=10)
    trainable, state = pruner.init(KEY, {"a": jnp.ones((4, 2)), "b": jnp.ones((8, 3)), "bias": jnp.ones(3)})
    assert float(pruner.penalty(0, trainable, state)) == pytest.approx(0, abs=1e-8) and pruner.settled(1, state)
    rates = {"a": jnp.float32(2.0), "b": jnp.float32(0.5), "bias": jnp.float32(0.0)}
    kept = (8 * (sigmoid(2.0) * 0.95 + 0.05) + 24 * (sigmoid(0.5) * 0.95 + 0.05)) / 32
    wide = trainable | {"rates": rates}
    assert float(pruner.penalty(0, wide, state)) == pytest.approx(0.01 * (kept / 0.5 - 1), rel=1e-4)
    update = jax.jit(pruner.update)
    _, after = update(KEY, jnp.int32(8), wide, None, state)
    assert float(after.gamma) == pytest.approx(0.01) and not pruner.settled(9, after)
    _, after = update(KEY, jnp.int32(9), wide, None, after)
    assert float(after.gamma) == pytest.approx(0.02)
    _, after = update(KEY, jnp.int32(19), trainable, None, after)
    assert float(after.gamma) == pytest.approx(0.02) and pruner.settled(20, after)


def test_rates_move_to_where_weights_are_needed_and_the_whole_gets_as_sparse_as_asked():
    """One layer's weights are all wanted, the other's not at all."""
    pruner = harp(0.5, frequency=5, gamma=1.0)
    params = {"wanted": jax.random.normal(KEY, (10, 5)) + 3, "useless": jax.random.normal(KEY, (5, 10)) + 3, "bias": jnp.ones(2)}
    trainable, state = jax.jit(pruner.init)(KEY, params)
    optimizer = optax.sgd(0.05)
    moments = optimizer.init(trainable)

    def loss(trainable, state, step):
        network = pruner.effective(trainable, state)
        value = jnp.mean((network["wanted"] - params["wanted"]) ** 2) + 0.2 * jnp.mean(network["useless"] ** 2)
        return value + pruner.penalty(step, trainable, state)

    @jax.jit
    def one(step, trainable, moments, state):
        updates, moments = optimizer.update(jax.grad(loss)(trainable, state, step), moments)
        return *pruner.update(KEY, step, optax.apply_updates(trainable, updates), None, state), moments

    for step in range(300):
        trainable, state, moments = one(jnp.int32(step), trainable, moments, state)
    params, masks = pruner.finish(trainable, state)
    assert int(masks["wanted"].sum()) > 35 > 20 > int(masks["useless"].sum())
    assert float(measured_sparsity(masks)) >= 0.49 and pruner.settled(300, state)
    assert bool(((params["wanted"] != 0) == masks["wanted"]).all())


def test_begins_as_erdos_renyi_where_asked_and_within_given_masks():
    params = {"a": jnp.ones((4, 2)), "b": jax.random.normal(KEY, (40, 30))}
    _, state = harp(0.8, frequency=5, initial="erk").init(KEY, params)
    assert int(state.masks["a"].sum()) == 8 and float(measured_sparsity(state.masks)) == pytest.approx(0.8, abs=2e-3)
    bound = {"a": jnp.ones((4, 2), bool), "b": jnp.arange(1200).reshape(40, 30) % 10 == 0}
    _, state = harp(0.8, frequency=5).init(KEY, params, bound)
    assert bool((state.masks["b"] <= bound["b"]).all()) and int(state.masks["b"].sum()) == 120


@pytest.mark.parametrize("wrong", [{"sparsity": 1.0}, {"frequency": 0}, {"gamma": 0.0}, {"initial": "random"}], ids=str)
def test_refusals(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        harp(**{"sparsity": 0.5, "frequency": 3} | wrong)
