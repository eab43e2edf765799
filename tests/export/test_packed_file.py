"""Packed files: what is written is read, and what cannot be read is refused."""

import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.export.files import write_tensors
from bap_jax.export.packed_file import read_packed, write_packed
from bap_jax.export.packing import pack


@pytest.mark.parametrize("density", [0.0, 0.005, 0.3, 1.0])
def test_there_and_back_is_exact_and_sparse_files_are_smaller(tmp_path, density):
    random = np.random.default_rng(0)
    weight = random.normal(size=(3, 3, 32, 64)).astype(np.float32) * (random.random((3, 3, 32, 64)) < density)
    tensors = {"model.conv.weight": weight, "model.mask": weight != 0, "model.scalar": np.float32(2).reshape(())}
    content = write_packed(tmp_path / "a", tensors, {"seed": 3})
    assert content == write_packed(tmp_path / "b", tensors, {"seed": 3})
    found, about = read_packed(tmp_path / "a")
    assert about == {"seed": 3} and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        np.testing.assert_array_equal(found[name], tensor)
    kept = np.count_nonzero(weight)
    as_bits = 2 * (weight.size / 8) + kept * (4 + 1)  # a bit per element of the weight and of its mask, and what is not zero
    assert len(content) <= min(as_bits, weight.nbytes + weight.size) + 1000  # for the header


def test_files_that_are_not_packed_are_refused(tmp_path):
    tensors = {"w": np.eye(64, dtype=np.float32)}
    write_tensors(tmp_path / "plain", tensors, {})
    write_tensors(tmp_path / "part", {k: v for k, v in pack(tensors).items() if not k.endswith("#shape")}, {"format": "packed"})
    (tmp_path / "cut").write_bytes(write_packed(tmp_path / "whole", tensors, {})[:-8])
    for name in ("plain", "part", "cut", "missing"):
        with pytest.raises(SettingError, match="path"):
            read_packed(tmp_path / name)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(SettingError, match="w#bits"):
        write_packed(tmp_path / "a", {"w#bits": np.ones(1)}, {})
    with pytest.raises(SettingError, match="format"):
        write_packed(tmp_path / "a", {"w": np.ones(1)}, {"format": "x"})
