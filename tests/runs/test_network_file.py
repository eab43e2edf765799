"""`bap export --format packed` and `int8`: one file, from which a network is rebuilt without its run."""

import json
import shutil

import jax
import numpy as np
import pytest
from random_runs import make_run

from bap_jax.checkpoint import Checkpoints, Network, open_run
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.export import is_packed, read_packed, write_packed
from bap_jax.mathematics.quantize import fake_quantize
from bap_jax.runs.one_file import export_packed
from bap_jax.runs.restore import load
from bap_jax.runs.settings import Settings

IMAGES = np.random.default_rng(1).uniform(size=(5, 8, 8, 1)).astype(np.float32)
NETWORKS = "networks_for_tests"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the perceptron on digits. Not to be changed."""
    return make_run(tmp_path_factory.mktemp("runs") / "x")


def save(folder, network, **settings):
    """A run folder of a given network."""
    with open_run(folder, Settings(data="digits", **settings).as_dict()) as opened, Checkpoints(opened.checkpoints) as kept:
        kept.save(0, {"step": np.int32(0)}, network=network, metadata={})


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert np.asarray(mine).tobytes() == np.asarray(theirs).tobytes()


def test_a_packed_file_is_the_run_s_network_to_the_bit_without_the_run(run, bap, tmp_path):
    gone = shutil.copytree(run, tmp_path / "gone")
    code, output, error = bap("export", gone, "--format", "packed", "--out", tmp_path / "net.safetensors")
    assert code == 0 and f"network: {tmp_path / 'net.safetensors'} (" in output, error
    shutil.rmtree(gone)
    here, there = load(tmp_path / "net.safetensors"), load(run)
    same_bits(here.network, there.network)
    np.testing.assert_array_equal(here(IMAGES), there(IMAGES))
    assert here.about["step"] == 7 and here.about["data"] == "digits"
    plan = {"attacks": "fgsm", "epsilon": 0.1, "limit": 20, "controls": False}
    assert here.evaluate(**plan).robust_accuracy.keys() == there.evaluate(**plan).robust_accuracy.keys()
    dense = sum(leaf.nbytes for leaf in jax.tree.leaves(there.network.params))
    assert (tmp_path / "net.safetensors").stat().st_size < 0.65 * dense  # half of the weights, a bit for each, the card
    assert "/home/somebody" not in json.dumps(read_packed(tmp_path / "net.safetensors")[1])


def test_options_of_the_network_and_kept_zeros_come_back(tmp_path):
    settings = {"model.mean": (0.5,), "model.std": (0.25,)}
    folder = make_run(tmp_path / "x", **settings)
    stored = load(folder).network
    params = jax.tree.map(np.array, stored.params)
    params["head"]["kernel"][np.nonzero(stored.masks["head"]["kernel"])[0][0]] = 0  # kept, and zero
    save(tmp_path / "y", Network(params, stored.masks, stored.model_state), **settings)
    path, _ = export_packed(tmp_path / "y")
    assert path == tmp_path / "y" / "export" / "model.packed.safetensors"
    same_bits(load(path).network, load(tmp_path / "y").network)
    np.testing.assert_array_equal(load(path)(IMAGES), load(tmp_path / "y")(IMAGES))


def test_half_precision_rounds_and_says_so(run, tmp_path):
    path, card = export_packed(run, out=tmp_path / "half.safetensors", dtype="float16")
    assert card["dtype"] == "float16" and load(path).about["dtype"] == "float16"
    for mine, theirs in zip(jax.tree.leaves(load(path).params), jax.tree.leaves(load(run).params), strict=True):
        np.testing.assert_array_equal(mine, np.asarray(theirs).astype(np.float16).astype(np.float32))
    same_bits(load(path).masks, load(run).masks)
    params = jax.tree.map(lambda leaf: leaf * 1e5, load(run).network)._replace(masks=load(run).masks)
    save(tmp_path / "y", params)
    with pytest.raises(SettingError, match="float32: "):
        export_packed(tmp_path / "y", dtype="float16")


def test_integers_stand_for_what_fake_quantize_gives(run, tmp_path):
    bits = 8
    path, card = export_packed(run, out=tmp_path / "small.safetensors", bits=bits)
    assert card["weight_bits"] == bits
    tensors, _ = read_packed(path)
    assert {tensor.dtype for name, tensor in tensors.items() if name in card["prunable"]} == {np.dtype(np.int8)}
    found, stored = load(path).network, load(run).network
    same_bits(found.masks, stored.masks)
    rounded = jax.jit(lambda params: jax.tree.map(lambda leaf: fake_quantize(leaf, bits=bits) if leaf.ndim > 1 else leaf, params))
    same_bits(found.params, rounded(stored.params))
    assert path.stat().st_size < 0.25 * sum(leaf.nbytes for leaf in jax.tree.leaves(stored.params))


def test_code_in_a_file_is_not_run_unasked(tmp_path, monkeypatch):
    from bap_jax.runs.trust import Trust

    own = f"{NETWORKS}:not_normalised"
    path, _ = export_packed(make_run(tmp_path / "x", model=own), trust=Trust(names=frozenset({own})))
    load(path)  # remembered of the folder that it was written to
    theirs = shutil.copy(path, tmp_path / "theirs.safetensors")
    with pytest.raises(SettingError, match="--trust"):
        load(theirs)
    assert load(theirs, trust=Trust(everything=True))(IMAGES).shape == (5, 10)


def test_what_is_not_whole_or_not_ours_is_refused_by_name(run, refused, tmp_path):
    path, card = export_packed(run, out=tmp_path / "net.safetensors")
    content = path.read_bytes()
    (tmp_path / "cut").write_bytes(content[:-5])
    (tmp_path / "altered").write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    (tmp_path / "reseeded").write_bytes(content.replace(b'seed\\":4', b'seed\\":5', 1).replace(b'seed\\": 4', b'seed\\": 5', 1))
    (tmp_path / "empty").write_bytes(b"")
    write_packed(tmp_path / "bare", {"w": np.eye(3)}, {})
    tensors = read_packed(path)[0]
    del card["settings"]["model"]
    write_packed(tmp_path / "other", tensors | {"params.fc1.kernel": np.ones((2, 2), np.float32)}, card)
    assert (tmp_path / "reseeded").read_bytes() != content and is_packed(tmp_path / "altered")
    for name in ("cut", "altered", "reseeded", "empty", "bare", "missing"):
        with pytest.raises(SettingError, match=name):
            load(tmp_path / name)
    with pytest.raises(CheckpointError, match="fc1"):
        load(tmp_path / "other")
    with pytest.raises(SettingError, match="checkpoint"):
        load(path, "best")
    for flags in (("--format", "gguf"), ("--format", "packed", "--layout", "torch"), ("--format", "packed", "--dtype", "int4")):
        assert flags[-2] in refused("export", run, *flags)
    assert "--bits" in refused("export", run, "--bits", "4")
    assert "bits" in refused("export", run, "--format", "int8", "--bits", "9")
    assert "--out" in refused("export", run, "--format", "packed", "--out", tmp_path / "x.bin")
