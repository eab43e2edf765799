"""FitNet-4: counts and shapes."""

import jax
import jax.numpy as jnp
import pytest

from bap_jax.models import build, count_parameters


@pytest.mark.parametrize(
    ("num_classes", "channels", "expected"), [(10, 3, 1_069_800), (100, 3, 1_069_800 + 45_000), (10, 1, 1_069_800 - 576)]
)
def test_kernel_weights(num_classes, channels, expected):
    # 9·(3·32 + 2·32² + 32·48 + 48² + 48·80 + 4·80² + 80·128 + 4·128²) + 128·500 + 500·K
    model = build("fitnet4", num_classes=num_classes)
    params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, channels)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1) == expected
    biases = 3 * 32 + 2 * 48 + 5 * 80 + 5 * 128 + 500 + num_classes
    assert count_parameters(params) == expected + biases
    assert state == {}


def test_shapes():
    model = build("fitnet4", num_classes=10)
    images = jnp.zeros((2, 32, 32, 3))
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    outputs, _ = jax.eval_shape(lambda p, x: model.apply(p, state, x, train=False), params, images)
    sizes = {name: tap.shape[1:] for name, tap in outputs.taps.items()}
    assert sizes == {"stage1": (32, 32, 48), "stage2": (16, 16, 80), "stage3": (8, 8, 128), "pooled": (128,), "fc1": (500,)}
