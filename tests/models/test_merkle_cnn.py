"""The CNN of "Pruning in the Face of Adversaries": counts, and its forward pass in numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.models import build, count_parameters


def test_counts():
    params = jax.eval_shape(build("merkle_cnn", num_classes=10).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))[0]
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"]
    assert count_parameters(kernels) == 61_470  # as published
    assert count_parameters(params) == 61_470 + 6 + 16 + 120 + 84 + 10


def test_it_is_what_a_plain_forward_pass_in_float64_says():
    model = build("merkle_cnn", num_classes=3, widths={"fc1": 5, "fc2": 4})
    images = np.random.RandomState(0).rand(2, 13, 12, 2)  # odd maps are pooled as VALID
    params, state = model.init(jax.random.key(0), jnp.asarray(images, jnp.float32))
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def conv(x, layer):
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
        return np.maximum(np.einsum("bhwcij,ijco->bhwo", windows, layer["kernel"]) + layer["bias"], 0)

    def pool(x):
        _, h, w, _ = x.shape
        x = x[:, : h // 2 * 2, : w // 2 * 2]
        return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4

    x = pool(conv(np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), weights["conv1"]))
    x = pool(conv(x, weights["conv2"])).reshape(2, -1)
    for name in ("fc1", "fc2"):
        x = np.tanh(x @ weights[name]["kernel"] + weights[name]["bias"])
    expected = x @ weights["head"]["kernel"] + weights["head"]["bias"]
    logits = model.apply(params, state, jnp.asarray(images, jnp.float32), train=False)[0].logits
    np.testing.assert_allclose(logits, expected, atol=1e-5)
