"""Layers of convolution in both forms, and pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bap_jax.errors import SettingError
from bap_jax.models.conv import conv_function, conv_layer, max_pool


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("kind", ["fast", "plain"])
def test_lowers_for_accelerators(kind, platform):
    layer = conv_layer(4, 3, conv=kind, strides=2)
    images = jnp.ones((2, 8, 8, 3))
    variables = layer.init(jax.random.key(0), images)
    gradients = jax.jit(jax.value_and_grad(lambda v, x: jnp.sum(layer.apply(v, x) ** 2), argnums=(0, 1)))
    text = gradients.trace(variables, images).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 3
    assert text.count("optimization_barrier") == (2 if kind == "fast" else 0)  # before each gradient


def test_unknown_form():
    with pytest.raises(SettingError, match="'fast' or 'plain'"):
        conv_function("quick")


@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (2, 7, 5, 3)])
def test_max_pool_is_reduce_window(shape):
    images, key = jax.random.normal(jax.random.key(0), shape), jax.random.key(1)

    def window(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    ours, pull = jax.vjp(max_pool, images)
    theirs, reference = jax.vjp(window, images)
    cotangent = jax.random.normal(key, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(pull(cotangent)[0], reference(cotangent)[0])


def test_max_pool_shares_the_gradient_of_a_tie():
    gradient = jax.grad(lambda x: max_pool(x)[0, 0, 0, 0])(jnp.array([1.0, 3.0, 3.0, 0.0]).reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(gradient.ravel(), [0, 0.5, 0.5, 0])


def test_max_pool_needs_two_rows():
    with pytest.raises(SettingError, match="at least 2"):
        max_pool(jnp.ones((1, 1, 4, 1)))
