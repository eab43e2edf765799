"""Packed tensors come back, and are as small as their zeros allow."""

import numpy as np
import pytest
import safetensors.numpy

from bap_jax.export.packing import file_bytes, pack, unpack

_random = np.random.RandomState(0)


def sparse(shape, density, dtype=np.float32):
    return np.asarray(np.where(_random.rand(*shape) < density, _random.randn(*shape), 0), dtype)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(3, 3, 7, 11), (5,), (1, 1), (0, 4), ()])
def test_there_and_back(shape, density):
    tensors = {"layer.weight": sparse(shape, density), "other": sparse((9, 9), density, np.float16)}
    found = unpack(safetensors.numpy.load(safetensors.numpy.save(pack(tensors))))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].shape == tensor.shape and found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


@pytest.mark.parametrize("kept, form, index_bytes", [(1.0, None, 0), (0.2, "#bits", 40_000 // 8), (0.005, "#gaps", 200 * 2)])
def test_the_smallest_form_is_taken_and_its_size_is_what_it_should_be(kept, form, index_bytes):
    tensor = np.zeros(40_000, np.float32)
    number = round(kept * tensor.size)
    step = tensor.size // number
    tensor[::step] = 1
    if form == "#gaps":
        tensor[[0, step]] = 0  # a gap of 400 elements, more than a byte holds
        number -= 2
        index_bytes = number * 2
    packed = pack({"w": tensor})
    assert (form is None) == ("w" in packed) and (form is None or f"w{form}" in packed)
    payload = sum(array.nbytes for array in packed.values())
    assert payload == number * 4 + index_bytes + (4 if form else 0)
    assert payload < file_bytes(packed) < payload + 300


def test_gaps_wider_than_a_byte():
    tensor = np.zeros(200_000, np.float32)
    tensor[[3, 199_999]] = 1, -2
    packed = pack({"w": tensor})
    assert packed["w#gaps"].dtype == np.uint32
    np.testing.assert_array_equal(unpack(packed)["w"], tensor)


def test_the_same_tensors_give_the_same_bytes():
    tensors = {"b": sparse((50, 50), 0.2), "a": sparse((50, 50), 0.01)}
    assert safetensors.numpy.save(pack(tensors)) == safetensors.numpy.save(pack({n: t.copy() for n, t in tensors.items()}))
