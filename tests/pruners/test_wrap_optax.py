"""Pruning by an optimiser: the masks of our step's, pruned weights exactly zero, kept ones to the bit as without."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from told import told

import bap_jax as bap
from bap_jax import budgets, losses, models, pruners
from bap_jax.errors import SettingError
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch, Recipe

B, D, K, STEPS = 8, 10, 3, 6
MODEL = models.from_function(
    lambda key, images: {"w": 0.3 * jax.random.normal(key, (D, K)), "b": jnp.zeros(K)}, lambda p, x: x @ p["w"] + p["b"][None]
)
IMAGES = jax.random.uniform(jax.random.key(1), (STEPS, B, D))
LABELS = jnp.arange(B) % K
MAGNITUDE = pruners.magnitude(bap.Ramp(0.2, 0.7, 1, 5, 2))


def train_step_run(optimizer, pruner):
    """The masks after every step of ours, and the last weights."""
    recipe = Recipe(optimizer, pruner, budgets.none(), losses.clean(label_smoothing=0.0))
    state = init_state(MODEL, *recipe, key=jax.random.key(0), images=IMAGES[0], info=told(B))
    step, masks = jax.jit(make_train_step(MODEL.apply, *recipe)), []
    first = state.trainable
    for images in IMAGES:
        state, _ = step(state, Batch(images, LABELS, jnp.arange(B), jnp.ones(B)))
        masks.append(state.prune.masks["w"])
    return first, masks, state.trainable


def own_loop(optimizer, params):
    """A loop as anybody writes it; the parameters, masks and states after every step."""

    @jax.jit
    def step(params, state, images):
        def loss(params):
            logits = MODEL.apply(params, {}, images, train=True)[0].logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state, seen = optimizer.init(params), []
    for images in IMAGES:
        params, state = step(params, state, images)
        seen.append((params, state))
    return seen


def test_masks_are_those_of_our_step():
    first, masks, last = train_step_run(optax.adam(0.05), MAGNITUDE)
    seen = own_loop(bap.pruners.wrap_optax(optax.adam(0.05), MAGNITUDE), first)
    for ours, (params, state) in zip(masks, seen, strict=True):
        np.testing.assert_array_equal(ours, state.prune.masks["w"])
        np.testing.assert_array_equal(params["w"] == 0, ~ours)
    assert int(masks[-1].sum()) == round(0.3 * D * K) and int(seen[-1][1].step) == STEPS
    np.testing.assert_allclose(seen[-1][0]["w"], last["w"], rtol=1e-4, atol=1e-6)


def test_kept_weights_are_to_the_bit_what_the_optimiser_alone_makes_of_them():
    params = MODEL.init(jax.random.key(0), IMAGES[0])[0] | {"b": jnp.array([0.1, -1e-8, 3e7])}
    gradients = jax.tree.map(lambda leaf: jnp.sin(100 * leaf), params)
    plain = optax.adam(0.05)
    optimizer = bap.pruners.wrap_optax(plain, pruners.magnitude(bap.Ramp(0.5, 0.5, 0, 0, 1)))
    alone = optax.apply_updates(params, plain.update(gradients, plain.init(params), params)[0])
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    pruned = optax.apply_updates(params, updates)
    mask = state.prune.masks["w"]
    assert int(mask.sum()) == D * K // 2
    np.testing.assert_array_equal(pruned["w"], jnp.where(mask, alone["w"], 0.0))
    np.testing.assert_array_equal(pruned["b"], alone["b"])
    assert not np.signbit(pruned["w"][~mask]).any()


def test_given_masks_stay_and_a_chain_is_wrapped():
    masks = {"w": jnp.arange(D * K).reshape(D, K) % 2 == 0, "b": jnp.bool_(True)}
    params = bap.apply_masks(MODEL.init(jax.random.key(0), IMAGES[0])[0], masks)
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    seen = own_loop(optax.chain(pruners.wrap_optax(chain, pruners.fixed(masks))), params)
    np.testing.assert_array_equal(seen[-1][0]["w"] != 0, masks["w"])


def test_moments_begin_anew_here_too():
    everything = lambda key, step, params, gradients, state: (params, state, jax.tree.map(lambda _: jnp.bool_(True), params))  # noqa: E731
    pruner = pruners.dense()._replace(resets=True, update=everything, due=lambda step, state: step == 1)
    optimizer, params = pruners.wrap_optax(optax.sgd(0.1, momentum=0.9), pruner), {"w": jnp.ones((2, 2))}
    state, traces = optimizer.init(params), []
    for _ in range(3):
        _, state = optimizer.update(params, state, params)
        traces.append(state.optimizer[0].trace["w"][0, 0].item())
    assert traces == [1.0, 0.0, 1.0]


def scores(key, params, masks=None):
    return {"weights": params, "scores": params}, pruners.DenseState(jax.tree.map(lambda _: jnp.bool_(True), params))


def rescaled(key, params, masks=None):
    return jax.tree.map(jnp.abs, params), pruners.DenseState(jax.tree.map(lambda _: jnp.bool_(True), params))


def test_pruners_that_train_something_else_are_refused_by_name():
    params = MODEL.init(jax.random.key(0), IMAGES[0])[0]
    for init in (scores, rescaled):
        own = pruners.dense()._replace(init=init, finish=lambda trainable, state: (params, state.masks))
        with pytest.raises(SettingError, match=rf"pruner = '{init.__name__}': expected one that trains the parameters"):
            pruners.wrap_optax(optax.sgd(0.1), own).init(params)
    ascending = MAGNITUDE._replace(ascend=lambda trainable, gradients, state: trainable)
    with pytest.raises(SettingError, match="pruner = 'magnitude': expected one without `ascend`"):
        pruners.wrap_optax(optax.sgd(0.1), ascending)
    with pytest.raises(SettingError, match="params = None"):
        optimizer = pruners.wrap_optax(optax.sgd(0.1), MAGNITUDE)
        optimizer.update(params, optimizer.init(params))
