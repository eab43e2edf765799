"""Files: whole or refused, the same bytes for the same tensors."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from bap_jax.errors import SettingError
from bap_jax.export import read_tensors, write_tensors

TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([True, False]), "n": np.array(3)}


def test_every_type_comes_back(tmp_path):
    tensors = dict(TENSORS)
    for dtype in ("float64", "float16", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"):
        tensors[dtype] = np.array([1, 2], dtype)
    write_tensors(tmp_path / "x.safetensors", tensors, {"layout": "jax"})
    found, about = read_tensors(tmp_path / "x.safetensors")
    assert about == {"layout": "jax"} and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape and np.array_equal(found[name], tensor)
    assert safetensors.numpy.load_file(tmp_path / "x.safetensors").keys() == tensors.keys()


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    about = {name: "x" for name in "abcdefgh"}
    files = {write_tensors(tmp_path / f"{i}.safetensors", TENSORS, about) for i in range(4)}
    assert len(files) == 1


def test_transposed_tensors_are_written_as_they_look(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"t": TENSORS["b"].T}, {})
    assert read_tensors(tmp_path / "x.safetensors")[0]["t"].tolist() == TENSORS["b"].T.tolist()


def test_bfloat16_is_read(tmp_path):
    values = np.array([1.0, -2.5]).astype(jnp.bfloat16)
    header = json.dumps({"h": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    assert read_tensors(tmp_path / "x.safetensors")[0]["h"].astype(np.float32).tolist() == [1.0, -2.5]


def test_metadata_of_others_is_no_card(tmp_path):
    for metadata in ({"format": "pt"}, {"bap_jax": "{"}, {"bap_jax": "3"}, None):
        safetensors.numpy.save_file(TENSORS, tmp_path / "x.safetensors", metadata=metadata)
        assert read_tensors(tmp_path / "x.safetensors")[1] == {}


@pytest.mark.parametrize("cut", [0, 4, 60, -1])
def test_a_file_that_is_not_whole_is_refused(tmp_path, cut):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SettingError, match=r"x\.safetensors'.* whole safetensors file"):
        read_tensors(path)


def test_a_file_that_is_not_there(tmp_path):
    for name in ("x.safetensors", "x.pt", ""):
        with pytest.raises(SettingError, match=r"FILE = .*state dict"):
            read_tensors(tmp_path / name)


def header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


ONE = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'


@pytest.mark.parametrize(
    "text",
    [
        '{"__metadata__": 3, %s}',
        '{"__metadata__": [], %s}',
        '{"__metadata__": {"bap_jax": null}, %s}',
        '{"__metadata__": {"bap_jax": {"a": 1}}, %s}',
        '{"a": 3}',
        '{"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "\\u001b[31m", "shape": [1], "data_offsets": [0, 4]}}',
        "[]",
        '{"a":' * 5000 + "1" + "}" * 5000,
        "{" + "[" * 100_000,
    ],
)
def test_a_header_of_wrong_types_is_refused_in_a_line(text, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(header(text.replace("%s", ONE).encode(), bytes(4)))
    with pytest.raises(SettingError, match="a whole safetensors file") as error:
        read_tensors(tmp_path / "x.safetensors")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("metadata", ["null", '{"bap_jax": "%s"}' % ("[" * 100_000), '{"bap_jax": "[1]"}', '{"bap_jax": "{}"}'])
def test_metadata_of_no_use_is_no_card(metadata, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(header(f'{{"__metadata__": {metadata}, {ONE}}}'.encode(), bytes(4)))
    tensors, about = read_tensors(tmp_path / "x.safetensors")
    assert tensors["a"].tolist() == [0] and about == {}


@pytest.mark.parametrize(("kind", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("C64", 8)])
def test_tensors_of_other_kinds_are_refused_by_name(kind, size, tmp_path):
    text = json.dumps({"fc.weight": {"dtype": kind, "shape": [1], "data_offsets": [0, size]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(header(text, bytes(size)))
    with pytest.raises(SettingError, match=f"tensors of a plain type; 'fc.weight' is {kind}"):
        read_tensors(tmp_path / "x.safetensors")


def test_escape_codes_in_names_do_not_come_out(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"a\x1b[31m": np.ones(1)}, {})
    with pytest.raises(SettingError) as error:
        read_tensors(tmp_path / "x.safetensors")
    assert r"a\x1b[31m" in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module.", "net.", "0.", "module.1."])
def test_what_wrappers_put_before_names_falls_away(prefix, tmp_path):
    write_tensors(tmp_path / "x.safetensors", {prefix + name: tensor for name, tensor in TENSORS.items()}, {})
    assert read_tensors(tmp_path / "x.safetensors")[0].keys() == TENSORS.keys()
