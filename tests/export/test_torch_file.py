"""Files of ``torch.save`` without PyTorch: what it really wrote, and whatever strangers and accidents make of it."""

import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_files import Call, Named, Storage, checkpoint, torch_save

from bap_jax.errors import SettingError
from bap_jax.export import read_stored, read_tensors, write_tensors
from bap_jax.export.torch_file import Unreadable, open_torch

RECORDED = Path(__file__).parent / "recorded"
WEIGHTS = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc.bias": np.ones(2, np.float32)}


def same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and np.array_equal(found[name], tensor), name


# ------------------------------------------------------------------------------------------------------------ what PyTorch wrote


@pytest.mark.parametrize("file", ["plain.pt", "plain_old.pt"])
def test_every_tensor_comes_as_it_was(file):
    found, about = read_tensors(RECORDED / file)
    assert about == {}
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    kinds = {name.removeprefix("type."): tensor for name, tensor in found.items() if name.startswith("type.")}
    assert len(kinds) == (12 if file == "plain.pt" else 10)
    for kind, tensor in kinds.items():
        assert tensor.dtype.name == kind and tensor.astype(np.float32).tolist() == [1, 0, 1 if kind == "bool" else 3]
    expected = {
        "view.rows": base[1:3],
        "view.columns": base[:, ::2],
        "view.transposed": base.T,
        "view.last": base[3, 5],
        "view.expanded": np.ones((2, 3), np.float32),
        "view.empty": base[:0],
        "scalar": np.array(7),
        "parameter": np.array([1, 2], np.float32),
        "parameter.attribute": np.array([3, 4], np.float32),
        "buffer": np.array([5], np.float32),
        "sparse": np.array([[0, 5], [0, 0], [13, 0]], np.float32),
        "negative": np.array([-2, 4], np.float32),
    }
    same({name: tensor for name, tensor in found.items() if name in expected}, expected)
    assert len(found) == len(kinds) + len(expected)


@pytest.mark.parametrize("file", ["checkpoint.pt", "checkpoint_old.pt"])
def test_the_weights_of_a_checkpoint_are_found(file):
    stored = read_stored(RECORDED / file)
    assert (stored.key, stored.others) == ("state_dict", ())
    assert set(stored.tensors) == {
        "0.weight",
        "0.bias",
        *(f"1.{n}" for n in ("weight", "bias", "running_mean", "running_var")),
    } | {"1.num_batches_tracked"}
    assert stored.tensors["1.num_batches_tracked"] == 1 and stored.tensors["0.weight"].shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("float8", "float8_e4m3fn"),
        ("complex", "complex64"),
        ("quantised", "qint8"),
        ("quantised.channels", "qint8"),
        ("csr", "torch.sparse_csr"),
        ("meta", "meta"),
    ],
)
def test_tensors_of_other_kinds_are_refused_by_name(name, told):
    file = open_torch(RECORDED / "special.pt")
    with pytest.raises(Unreadable, match=f"tensors of a plain type; '{name}' is {told}"):
        file.read(file.content[name], name)
    with pytest.raises(SettingError, match="tensors of a plain type; 'float8' is float8_e4m3fn"):
        read_tensors(RECORDED / "special.pt")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("numpy_scalar.pt", "numpy._core.multiarray.scalar"),
        ("namespace.pt", "argparse.Namespace"),
        ("module.pt", "torch.nn.modules.linear.Linear"),
    ],
)
def test_objects_are_refused_by_name_with_the_lines_that_save_the_weights(file, told):
    with pytest.raises(SettingError, match=r"state = model\.state_dict\(\); torch\.save\(state") as error:
        read_tensors(RECORDED / file)
    assert f"it holds the object {told}," in str(error.value)
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------- nothing is run


def test_nothing_that_a_file_names_is_run(tmp_path):
    mark = tmp_path / "run"
    for module, name in [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("torch", "load")]:
        torch_save({"w.w": np.ones(1, np.float32), "x": Call(Named(module, name), (f"touch {mark}",))}, tmp_path / "x.pt")
        with pytest.raises(SettingError, match=rf"the object {module}\.{name}"):
            read_tensors(tmp_path / "x.pt")
    with open(tmp_path / "plain.pkl", "wb") as file:
        pickle.dump({"a": print}, file)
    with pytest.raises(SettingError, match=r"the object builtins\.print"):
        read_tensors(tmp_path / "plain.pkl")
    assert not mark.exists()


def test_what_stands_in_for_a_function_cannot_be_changed(tmp_path):
    """BUILD sets attributes: of ours there are none to set."""
    for target in (Named("torch._utils", "_rebuild_tensor_v2"), Named("torch", "FloatStorage"), Named("torch", "Size")):
        torch_save({"a": target}, tmp_path / "x.pt")
        with zipfile.ZipFile(tmp_path / "x.pt") as archive:
            data = archive.read("archive/data.pkl")
        name = f"c{target.module}\n{target.name}\n".encode()
        assert name in data
        changed = data.replace(name, name + b"}X\x07\x00\x00\x00__doc__X\x01\x00\x00\x00xsb")
        list(pickletools.genops(changed))
        with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
            archive.writestr("archive/data.pkl", changed)
        with pytest.raises(SettingError, match="damaged"):
            read_tensors(tmp_path / "y.pt")


# ----------------------------------------------------------------------------------------------------------------- where they are


@pytest.mark.parametrize("key", ["state_dict", "net", "model", "model_state_dict", "model_ema", "ema_weights"])
def test_weights_beside_accuracy_and_optimiser(key, tmp_path):
    torch_save(checkpoint(key, {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}), tmp_path / "x.pth.tar")
    stored = read_stored(tmp_path / "x.pth.tar")
    same(stored.tensors, WEIGHTS)
    assert (stored.key, stored.others) == (key, ())


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (WEIGHTS, ""),
        ({"model": checkpoint("state_dict", WEIGHTS), "rng": np.zeros(3, np.uint8)}, "model.state_dict"),
        ({"state_dict": {"model": WEIGHTS}, "epoch": 1}, "state_dict.model"),
        ({"optimizer": {"state": {"fc.weight": {"exp_avg": np.ones(1)}}}, "weights": WEIGHTS}, "weights"),
        ({"model": {"weight": np.ones(3)}}, "model"),
    ],
)
def test_weights_at_any_depth(content, place, tmp_path):
    stored = read_stored(torch_save(content, tmp_path / "x.pt"))
    assert (stored.key, stored.others) == (place, ())


def test_of_several_the_usual_is_taken_and_said_or_one_is_chosen(tmp_path):
    average = {name: 2 * tensor for name, tensor in WEIGHTS.items()}
    file = torch_save({"state_dict": WEIGHTS, "model_ema": average, "epoch": 3}, tmp_path / "x.pt")
    stored = read_stored(file)
    assert (stored.key, stored.others) == ("state_dict", ("model_ema",))
    same(read_stored(file, "model_ema").tensors, average)
    with pytest.raises(
        SettingError, match=r"--key = 'epoch': expected one of 'state_dict' \(2 tensors\), 'model_ema' \(2 tensors\)"
    ):
        read_stored(file, "epoch")
    for content in ({"teacher": WEIGHTS, "student": average}, {"net": WEIGHTS, "model": average}):
        file = torch_save(content, tmp_path / "y.pt")
        first, second = content
        with pytest.raises(SettingError, match=rf"--key to choose; it holds '{first}' \(2 tensors\), '{second}' \(2 tensors\)"):
            read_stored(file)
        same(read_stored(file, second).tensors, average)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "not a list"),
        (np.ones(2, np.float32), "not a tensor"),
        (3, "not a int"),
        ({}, "not a dict"),
        ({"a": np.ones(1), "note": "x"}, "'note' is a str"),
        ({"a.b": np.ones(1), "epoch": 3}, "'epoch' is a int"),
        ({"epoch": 3, "accuracy": 0.5}, "its keys are 'epoch', 'accuracy'"),
        ({0: np.ones(1), 1: np.ones(1)}, "its keys are 0, 1"),
        ({"a.\x1b[31mred": np.ones(1)}, r"a tensor is called 'a.\x1b[31mred'"),
        ({"\x1b[31m": 3}, r"its keys are '\x1b[31m'"),
    ],
)
def test_what_holds_no_weights_is_told(content, told, tmp_path):
    with pytest.raises(SettingError) as error:
        read_tensors(torch_save(content, tmp_path / "x.pt"))
    assert told in str(error.value) and str(error.value).isprintable()


def test_dicts_in_themselves_and_in_hundreds_of_others_end(tmp_path):
    deep: dict = {"w.w": np.ones(1)}
    for _ in range(50):
        deep = {"a": deep}
    with pytest.raises(SettingError, match="its keys are 'a'"):
        read_tensors(torch_save(deep, tmp_path / "x.pt"))
    circle: dict = {"w": WEIGHTS}
    circle["again"] = circle
    assert read_stored(torch_save(circle, tmp_path / "y.pt")).key == "w"


# --------------------------------------------------------------------------------------------------------------------- accidents


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "this one is empty"),
        (b"\n  <!DOCTYPE html><html>", "a web page"),
        (b"<?xml version='1.0'?>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x1f\x8b\x08\x00", "unpack it first"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x93NUMPY\x01\x00", "a numpy array"),
        (b"x" * 257 + b"ustar\x00", "a tar archive"),
        (b"no weights", "neither safetensors nor what torch.save writes"),
        (pickle.dumps({"a": 3}), "a pickle of something else"),
        (pickle.dumps([1]), "a pickle of something else, a list"),
        (b"PK", "cut off or damaged"),
    ],
)
def test_files_that_are_something_else(content, told, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(SettingError, match=told):
        read_tensors(tmp_path / "x.pt")
    if content.startswith(b"\n  <"):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(SettingError, match="a web page"):
            read_tensors(tmp_path / "x.safetensors")


def test_other_archives_are_told_apart(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(1))
    with pytest.raises(SettingError, match="this is a numpy archive"):
        read_tensors(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(SettingError, match="a zip archive of something else"):
        read_tensors(tmp_path / "y.zip")
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"z/{name}", "x")
    with pytest.raises(SettingError, match="not a TorchScript program"):
        read_tensors(tmp_path / "z.pt")


def test_the_beginning_of_a_file_counts_not_its_suffix(tmp_path):
    same(read_tensors(torch_save(WEIGHTS, tmp_path / "x.safetensors"))[0], WEIGHTS)
    write_tensors(tmp_path / "y.bin", WEIGHTS, {})
    assert read_tensors(tmp_path / "y.bin")[0].keys() == WEIGHTS.keys()
    with pytest.raises(SettingError, match=r"--key = 'a': expected none"):
        read_tensors(tmp_path / "y.bin", "a")


@pytest.mark.parametrize("file", ["plain.pt", "plain_old.pt", "checkpoint.pt", "special.pt"])
def test_cut_and_damaged_files_are_refused_or_read_as_they_were(file, tmp_path):
    """Nothing else than a SettingError comes out; the zip's checksums find every flipped bit of a tensor."""
    content = (RECORDED / file).read_bytes()
    whole = None if file == "special.pt" else read_tensors(RECORDED / file)[0]
    path = tmp_path / "x.pt"
    generator = np.random.default_rng(0)
    for cut in [*generator.integers(1, len(content), 25), len(content) - 1]:
        path.write_bytes(content[:cut])
        with pytest.raises(SettingError):
            read_tensors(path)
    for place in generator.integers(0, len(content), 100):
        changed = bytearray(content)
        changed[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(changed))
        try:
            found = read_tensors(path)[0]
        except SettingError:
            continue
        if file != "plain_old.pt":  # which has no checksums
            same(found, whole)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((3,), (1,), 0),
        ((2,), (1,), 1),
        ((2,), (-1,), 1),
        ((1 << 40,), (0,), 0),
        ((1, 2), (1,), 0),
        ((1.0,), (1,), 0),
        ((-1,), (1,), 0),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(shape, strides, offset, tmp_path):
    storage = Storage(("storage", Named("torch", "FloatStorage"), "0", "cpu", 2))
    tensor = Call(Named("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, {}))
    torch_save({"first": np.ones(2, np.float32), "x.y": tensor}, tmp_path / "x.pt")
    with pytest.raises(SettingError, match="a whole file"):
        read_tensors(tmp_path / "x.pt")


def test_a_memo_far_off_takes_no_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(SettingError, match="damaged"):
        read_tensors(tmp_path / "x.pt")


def test_a_compressed_entry_is_refused(tmp_path):
    torch_save(WEIGHTS, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(SettingError, match="not compressed"):
        read_tensors(tmp_path / "y.pt")
