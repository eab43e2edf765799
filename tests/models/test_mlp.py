"""The multi-layer perceptron against numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.models import build, count_parameters


def test_forward_is_numpy():
    images = jax.random.uniform(jax.random.key(1), (5, 2, 3, 1))
    model = build("mlp", num_classes=4, hidden=[7, 6])
    params, state = jax.jit(model.init)(jax.random.key(0), images)
    outputs, _ = model.apply(params, state, images, train=True)
    x = np.asarray(images).reshape(5, 6)
    for name in ("fc1", "fc2"):
        x = np.maximum(x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"]), 0)
    np.testing.assert_allclose(outputs.taps["hidden2"], x, rtol=1e-5, atol=1e-6)
    expected = x @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-6)


def test_count_on_digits():
    model = build("mlp", num_classes=10)
    params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    assert count_parameters(params) == 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
    assert state == {}
