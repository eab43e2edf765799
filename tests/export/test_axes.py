"""Axes: what a layer computes stays the same, in either layout."""

import numpy as np
import pytest

from bap_jax.export import Arranged, arrange, restore
from bap_jax.export.axes import arranged_shape

CASES = [
    (Arranged(), (5,)),
    (Arranged("conv"), (3, 2, 4, 5)),
    (Arranged("dense"), (4, 3)),
    (Arranged("flattened", (2, 3, 4)), (24, 5)),
]


@pytest.mark.parametrize(("arranged", "shape"), CASES)
def test_there_and_back(arranged, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    there = arrange(array, arranged)
    assert there.shape == arranged_shape(shape, arranged) and there.flags.c_contiguous
    back = restore(there, arranged)
    assert back.flags.c_contiguous and np.array_equal(back, array)
    there[...] = -1
    assert array.min() == 0  # a copy


def test_a_flattened_map_s_dense_layer_is_applied_by_hand():
    """On both orders of flattening the layer gives the same outputs; a map that is not square shows a swap of its sides."""
    generator = np.random.default_rng(0)
    images, kernel = generator.normal(size=(3, 2, 5, 4)), generator.normal(size=(40, 6))  # NHWC
    here = images.reshape(3, -1) @ kernel
    weight = arrange(kernel, Arranged("flattened", (2, 5, 4)))
    there = images.transpose(0, 3, 1, 2).reshape(3, -1) @ weight.T
    np.testing.assert_allclose(there, here, rtol=1e-12)
    plain = images.transpose(0, 3, 1, 2).reshape(3, -1) @ arrange(kernel, Arranged("dense")).T
    assert not np.allclose(plain, here)


def test_a_convolution_is_applied_by_hand():
    generator = np.random.default_rng(1)
    patch, kernel = generator.normal(size=(3, 2, 4)), generator.normal(size=(3, 2, 4, 5))  # HWC, HWIO
    here = np.einsum("hwi,hwio->o", patch, kernel)
    there = np.einsum("ihw,oihw->o", patch.transpose(2, 0, 1), arrange(kernel, Arranged("conv")))
    np.testing.assert_allclose(there, here, rtol=1e-12)
