"""The sizes in every row of an evaluation are those of the network, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.checkpoint import Network
from bap_jax.mathematics.masks import apply_masks, magnitude_masks
from bap_jax.models import build
from bap_jax.report.tables import SIZE_COLUMNS
from bap_jax.runs.sizes import COUNTED, sizes_of

SHAPE = (8, 8, 1)


def pruned(sparsity):
    model = build("mlp", num_classes=10, hidden=(20,))
    params, state = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    masks = magnitude_masks(params, sparsity, scope="layer")
    network = Network(jax.tree.map(np.asarray, apply_masks(params, masks)), jax.tree.map(np.asarray, masks), state)
    return network, lambda weights, images: model.apply(*weights, images, train=False)[0].logits


@pytest.mark.parametrize("sparsity, kept", [(0.0, (1280, 200)), (0.9, (128, 20))])
def test_by_hand(sparsity, kept):
    sizes, check = sizes_of(*pruned(sparsity), SHAPE)
    assert check.status == "passed" and check.name == COUNTED
    assert sizes["num_parameters"] == 64 * 20 + 20 + 20 * 10 + 10
    assert sizes["nonzero"] == sum(kept)  # biases begin at zero
    assert sizes["compression_ratio"] == pytest.approx(1480 / sum(kept))
    assert (sizes["flops_dense"], sizes["flops_sparse"]) == (2 * 1480, 2 * sum(kept))
    assert (sizes["bops_dense"], sizes["bops_sparse"]) == (1480 * 32 * 32, sum(kept) * 32 * 32)
    assert SIZE_COLUMNS.keys() <= sizes.keys()  # what a report shows
    tensors = 4 * (1480 + 30)
    assert tensors < sizes["bytes_dense"] < tensors + 500
    if sparsity:  # a byte a gap is narrower here than a bit a weight
        assert 5 * sum(kept) < sizes["bytes"] < 5 * sum(kept) + 1000 < sizes["bytes_dense"]
    else:
        assert sizes["bytes"] <= sizes["bytes_dense"] + 300


def test_small_integers_take_fewer_bytes_and_bit_operations():
    small, _ = sizes_of(*pruned(0.0), SHAPE, 8)
    assert small["bops_dense"] == 1480 * 8 * 32 and small["flops_dense"] == 2 * 1480
    assert 0 < small["bytes_dense"] - (1480 + 4 * (30 + 30)) < 900  # a byte a weight; biases and scales of four; the header


def test_work_that_cannot_be_counted_is_said_and_stops_nothing():
    network, _ = pruned(0.9)

    def loops(weights, images):
        kernel = weights[0]["fc1"]["kernel"]
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 0, lambda x: x @ kernel @ kernel.T, images.reshape(1, -1))

    sizes, check = sizes_of(network, loops, SHAPE)
    assert sizes["flops_dense"] is None and sizes["flops_sparse"] is None and sizes["bytes"] > 0
    assert check.status == "warned" and "while" in check.value

    def disguised(weights, images):
        return jnp.sum(images.reshape(-1, 64, 1) * weights[0]["fc1"]["kernel"][None], axis=1) @ weights[0]["head"]["kernel"]

    sizes, check = sizes_of(network, disguised, SHAPE)
    assert sizes["flops_dense"] == 2 * 200 and check.status == "warned" and "params/fc1/kernel" in check.value
