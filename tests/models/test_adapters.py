"""Linen, NNX and plain functions: the same contract."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bap_jax.attacks import pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics import cross_entropy
from bap_jax.models import fast_conv, from_function, from_linen, from_nnx, two_class
from bap_jax.types import Outputs

IMAGES = jax.random.normal(jax.random.key(7), (6, 4, 4, 2))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(3, (3, 3), name="conv")(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(5, name="head")(x.mean((1, 2))), {"conv": x}


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3, 3), conv_general_dilated=fast_conv, rngs=rngs)
        self.bn = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(3, 5, rngs=rngs)])

    def __call__(self, images):
        x = self.dropout(nnx.relu(self.bn(self.conv(images))))
        return self.heads[0](x.mean((1, 2))), {"conv": x}


def plain_model():
    def init(key, images):
        return {"w": 0.1 * jax.random.normal(key, (images.shape[-1], 5)), "b": jnp.zeros((1, 5))}

    def apply(params, images, *, train, key):
        x = jnp.tanh(images).mean((1, 2))
        x = x * jax.random.bernoulli(key, 0.5, x.shape) if train else x
        return Outputs(x @ params["w"] + params["b"], {"conv": x})

    return from_function(init, apply)


MODELS = {"linen": lambda: from_linen(LinenNet()), "nnx": lambda: from_nnx(NnxNet), "function": plain_model}


def start(model):
    return jax.jit(model.init)(jax.random.key(0), IMAGES)


@pytest.fixture(params=MODELS, scope="module")
def started(request):
    """A model, its parameters and its state."""
    model = MODELS[request.param]()
    return model, *start(model)


def is_plain(tree):
    """Nested dictionaries of arrays: what an optimiser, a mask and a checkpoint take."""
    return all(is_plain(v) for v in tree.values()) if isinstance(tree, dict) else isinstance(tree, jax.Array)


def test_init_is_jittable_and_gives_plain_trees(started):
    model, params, state = started
    assert is_plain(params) and is_plain(state) and jax.tree.leaves(params)
    init = jax.jit(model.init)
    jax.tree.map(np.testing.assert_array_equal, init(jax.random.key(0), IMAGES)[0], params)
    other, _ = init(jax.random.key(1), IMAGES)
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True))


def test_evaluation_is_deterministic_and_leaves_the_state(started):
    model, params, state = started
    run = jax.jit(lambda p, s, x: model.apply(p, s, x, train=False))
    outputs, after = run(params, state, IMAGES)
    assert isinstance(outputs, Outputs) and outputs.logits.shape == (6, 5) and set(outputs.taps) == {"conv"}
    jax.tree.map(np.testing.assert_array_equal, after, state)
    np.testing.assert_array_equal(run(params, state, IMAGES)[0].logits, outputs.logits)
    np.testing.assert_allclose(run(params, state, IMAGES[2:3])[0].logits, outputs.logits[2:3], rtol=1e-5, atol=1e-6)


def test_gradients_to_params_and_images(started):
    model, params, state = started

    def loss(params, images):
        outputs, moved = model.apply(params, state, images, train=True, key=jax.random.key(3))
        return jnp.sum(outputs.logits**2), moved

    (to_params, to_images), moved = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, IMAGES)
    assert jax.tree.structure(to_params) == jax.tree.structure(params)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(to_params))
    assert to_images.shape == IMAGES.shape and np.abs(to_images).max() > 0
    # a small step along the gradient changes the loss by what the gradient says
    value = jax.jit(lambda p: loss(p, IMAGES)[0])
    change = value(params) - value(jax.tree.map(lambda p, g: p - 1e-4 * g, params, to_params))
    predicted = 1e-4 * sum(jnp.sum(g**2) for g in jax.tree.leaves(to_params))
    np.testing.assert_allclose(change, predicted, rtol=0.05, atol=2e-5 * float(jnp.abs(value(params))))


def test_the_key_rules_the_noise(started):
    model, params, state = started
    run = jax.jit(lambda key: model.apply(params, state, IMAGES, train=True, key=key)[0].logits)
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert not np.allclose(run(jax.random.key(1)), run(jax.random.key(2)))


def test_vmap_over_params_and_scan_over_state(started):
    model, params, state = started
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    run = lambda p: model.apply(p, state, IMAGES, train=False)[0].logits  # noqa: E731
    logits, alone = jax.jit(lambda: (jax.vmap(run)(many), run(params)))()
    np.testing.assert_allclose(logits[0], alone, rtol=1e-4, atol=1e-5)

    def step(state, key):
        outputs, state = model.apply(params, state, IMAGES, train=True, key=key)
        return state, outputs.logits

    last, _ = jax.lax.scan(step, state, jax.random.split(jax.random.key(0), 3))
    assert jax.tree.structure(last) == jax.tree.structure(state)


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_batch_norm_update(name):
    model = MODELS[name]()
    params, state = start(model)
    _, moved = jax.jit(lambda p, s, x: model.apply(p, s, x, train=True, key=jax.random.key(1)))(params, state, IMAGES)
    kernel, bias = params["conv"]["kernel"], params["conv"]["bias"]
    x = jax.lax.conv_general_dilated(IMAGES, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias.reshape(
        1, 1, 1, -1
    )
    statistics = (moved["batch_stats"] if name == "linen" else moved)["bn"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-4)


def test_nnx_with_dropout_needs_a_key_to_train():
    model = from_nnx(NnxNet)
    params, state = start(model)
    with pytest.raises(SettingError, match="key"):
        model.apply(params, state, IMAGES, train=True)


def test_nnx_state_holds_no_random_streams():
    _, state = start(from_nnx(NnxNet))
    assert set(state) == {"bn"} and set(state["bn"]) == {"mean", "var"}


def test_linen_with_dropout_needs_a_key_to_train():
    model = from_linen(LinenNet())
    params, state = start(model)
    with pytest.raises(Exception, match="dropout"):
        model.apply(params, state, IMAGES, train=True)


def test_stateless_linen_module_that_takes_no_train():
    model = from_linen(nn.Sequential([nn.Conv(2, (3, 3)), lambda x: x.mean((1, 2))]))
    params, state = start(model)
    assert state == {}
    outputs, after = model.apply(params, state, IMAGES, train=True)
    assert outputs.logits.shape == (6, 2) and outputs.taps == {} and after == {}


def test_sown_intermediates_are_no_state():
    class Sower(nn.Module):
        @nn.compact
        def __call__(self, images):
            self.sow("intermediates", "mean", images.mean())
            return nn.Dense(3)(images.mean((1, 2)))

    _, state = start(from_linen(Sower()))
    assert state == {}


def test_linen_wants_a_module():
    with pytest.raises(SettingError, match="module"):
        from_linen(lambda x: x)


def test_a_result_of_another_kind():
    model = from_function(lambda key, images: {}, lambda params, images: [images])
    with pytest.raises(SettingError, match="logits"):
        model.apply({}, {}, IMAGES, train=False)


def test_one_logit_is_two_classes():
    """The loss of [0, s] is the logistic loss of s, wherever the logit stands in the result."""
    images, labels = jnp.array([[1.0, 2.0], [-1.0, 0.5]]), jnp.array([1, 0])
    logit = images.sum(axis=1)
    expected = jnp.where(labels == 1, jax.nn.softplus(-logit), jax.nn.softplus(logit))
    plain = two_class(lambda x: x.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(cross_entropy(plain(images), labels), expected, rtol=1e-6)
    model = from_function(lambda key, x: {"w": jnp.ones(2)}, two_class(lambda params, x, train: (x @ params["w"], {"x": x})))
    params, state = model.init(jax.random.key(0), images)
    outputs, _ = model.apply(params, state, images, train=False)
    np.testing.assert_array_equal(outputs.logits, plain(images))
    assert set(outputs.taps) == {"x"}
    whole = two_class(from_linen(nn.Dense(1)))
    outputs, _ = whole.apply(*whole.init(jax.random.key(0), images), images, train=False)
    assert outputs.logits.shape == (2, 2) and not outputs.logits[:, 0].any()
    with pytest.raises(SettingError, match=r"one logit per image"):
        two_class(lambda x: x)(images)
    with pytest.raises(SettingError, match=r"bap\.models\.two_class"):
        pgd(lambda x: x.sum(axis=1), None, images / 4 + 0.5, labels, epsilon=0.1, num_steps=1, random_start=False)
