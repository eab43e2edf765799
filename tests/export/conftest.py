"""Networks with random weights, BatchNorm statistics and masks, made without compiling their initialisation."""

import jax
import numpy as np
import pytest

from bap_jax.models import build


def random_network(name, image_shape, seed=0, **options):
    """(model, params, masks, model_state) of numpy arrays; about half of every kernel is pruned, but its zeros are not set."""
    model = build(name, num_classes=10, **options)
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *image_shape), np.float32))
    generator = np.random.default_rng(seed)

    def weights(leaf):
        scale = (2.0 / max(np.prod(leaf.shape[:-1]), 1)) ** 0.5 if leaf.ndim > 1 else 0.1
        return (1.0 if leaf.ndim == 1 else 0.0) + scale * generator.standard_normal(leaf.shape, np.float32)

    def statistics(leaf):
        return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)

    params, model_state = jax.tree.map(weights, params), jax.tree.map(statistics, model_state)
    masks = jax.tree.map(lambda leaf: generator.random(leaf.shape) < 0.5 if leaf.ndim > 1 else np.array(True), params)
    return model, params, masks, model_state


@pytest.fixture
def make_network():
    return random_network
