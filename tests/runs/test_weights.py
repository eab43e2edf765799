"""`bap export` and `bap import`: a run's network to files and back, and every error on the way."""

import hashlib
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from random_runs import make_run
from torch_files import checkpoint, torch_save

from bap_jax.checkpoint import restore_network
from bap_jax.export import read_tensors, write_tensors
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.restore import load
from bap_jax.runs.trust import Trust
from bap_jax.runs.weights import export_run, import_run

OWN, NETWORKS = "plugins_for_tests", "networks_for_tests"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the perceptron on digits. Not to be changed."""
    return make_run(tmp_path_factory.mktemp("runs") / "x")


@pytest.fixture
def weights(run, tmp_path):
    """Its exported weights, free to be changed."""
    files, _ = export_run(run, out=tmp_path / "w" / "model.safetensors")
    return files.weights


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert np.asarray(mine).tobytes() == np.asarray(theirs).tobytes()


@pytest.mark.parametrize("layout", ["torch", "jax"])
def test_a_network_goes_out_and_comes_back_to_the_bit(layout, run, bap, tmp_path):
    file = tmp_path / "w" / "net.safetensors"
    code, output, error = bap("export", run, "--layout", layout, "--out", file)
    assert code == 0, error
    images = "NCHW 1×8×8" if layout == "torch" else "NHWC 8×8×1"
    for part in (f"weights: {file} (", "net.masks.safetensors", "net.json", layout, "50,826", images):
        assert part in output
    code, output, error = bap("import", file, "--model", "mlp", "--data", "digits", "--out", tmp_path / "y")
    assert code == 0, error
    assert layout in output and "the file's" in output and f"next: bap evaluate {tmp_path / 'y'}" in output
    same_bits(restore_network(tmp_path / "y"), restore_network(run))


def test_an_imported_run_is_evaluated_like_the_one_it_came_from(run, weights, tmp_path):
    import_run(weights, model="mlp", data="digits", out=tmp_path / "y, by me")
    plan = AttackPlan(attack="fgsm", epsilon="0.05,0.1", limit=40)
    records = [evaluate_run(folder, plan) for folder in (run, tmp_path / "y, by me")]
    for here, there in zip(*(record["rows"] for record in records), strict=True):
        for name in ("accuracy", "sparsity_measured", "nonzero", "num_parameters", "attack", "epsilon"):
            assert here[name] == there[name]
        assert (there["arm"], there["process"]) == ("imported y  by me", "imported")  # it does not claim how it was trained
    assert records[1]["finished"]
    images = np.random.default_rng(0).uniform(size=(4, 8, 8, 1))
    np.testing.assert_array_equal(load(tmp_path / "y, by me")(images), load(run)(images))
    record = json.loads((tmp_path / "y, by me" / "import.json").read_text())
    assert record["file"] == "model.safetensors" and record["card"]["seed"] == 4
    assert record["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_what_the_card_says(run, tmp_path):
    files, card = export_run(run, out=tmp_path / "model.safetensors")
    assert json.loads(files.card.read_text()) == card
    assert (card["architecture"], card["num_classes"], card["layout"]) == ("mlp", 10, "torch")
    assert card["input"] == {"axes": "NCHW", "shape": [1, 8, 8], "bounds": [0.0, 1.0]}
    assert card["normalisation"]["mean"] == [0.0] and card["normalisation"]["std"] == [1.0] and card["batch_norm"] is None
    assert (card["data"], card["seed"], card["step"], card["finished"]) == ("digits", 4, 7, True)
    assert card["settings"]["final_sparsity"] == 0.5 and "/home/somebody" not in files.card.read_text()
    assert "bap_jax" in card["versions"]["trained_with"] and "jax" in card["versions"]["exported_with"]
    for name in ("weights", "masks"):
        content = getattr(files, name).read_bytes()
        assert card["files"][name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert card["files"][name]["bytes"] == len(content)
    tensors, masks = safetensors.numpy.load_file(files.weights), safetensors.numpy.load_file(files.masks)
    assert {tensor["name"]: tensor["shape"] for tensor in card["tensors"]} == {n: list(t.shape) for n, t in tensors.items()}
    assert card["weights"]["nonzero"] == sum(np.count_nonzero(tensor) for tensor in tensors.values())
    assert card["weights"]["parameters"] == 50_826
    assert masks.keys() == {"fc1.weight", "fc2.weight", "head.weight"} and all(mask.dtype == bool for mask in masks.values())
    assert card["weights"]["sparsity"] == pytest.approx(1 - np.mean(np.concatenate([m.ravel() for m in masks.values()])))
    assert all(np.all(tensors[name][~mask] == 0) for name, mask in masks.items())


def test_batch_norm_is_described(tmp_path):
    folder = make_run(tmp_path / "x", model="resnet8")
    _, card = export_run(folder)
    assert card["batch_norm"]["epsilon"] == 1e-5 and card["batch_norm"]["momentum"] == 0.1
    assert (folder / "export" / "model.safetensors").exists()  # where it goes by default


def test_the_same_network_is_the_same_bytes(run, tmp_path):
    once, again = (export_run(run, out=tmp_path / name / "model.safetensors")[0] for name in "ab")
    for one, other in zip(once, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_checkpoint_is_chosen(run, tmp_path):
    (_, last), (_, best), (_, third) = (
        export_run(run, out=tmp_path / f"{which}.safetensors", checkpoint=which) for which in ("last", "best", "3")
    )
    assert (last["step"], best["step"], third["step"]) == (7, 3, 3)
    first, other = (safetensors.numpy.load_file(tmp_path / f"{which}.safetensors")["head.bias"] for which in ("3", "last"))
    np.testing.assert_allclose(other * 3, first * 7, rtol=1e-6)


def test_a_network_of_one_s_own(bap, refused, tmp_path):
    """The layout jax holds any network; PyTorch's names are those of an architecture that it says it has."""
    own = make_run(tmp_path / "x", model=f"{OWN}:small", data=f"{OWN}:blobs", image_shape=blob_shape())
    code, output, error = bap("export", own, "--trust")
    assert code == 0 and "jax" in output, error
    given = ("--model", f"{OWN}:small", "--data", f"{OWN}:blobs")
    assert bap("import", own / "export" / "model.safetensors", *given, "--out", tmp_path / "y")[0] == 0
    same_bits(restore_network(tmp_path / "y"), restore_network(own))
    assert f"architecture = '{OWN}:small'" in refused("export", own, "--layout", "torch")
    mlp = make_run(tmp_path / "mlp", model=f"{NETWORKS}:normalised")
    files, card = export_run(mlp, architecture="mlp", trust=Trust(everything=True))
    assert card["layout"] == "torch" and card["normalisation"]["mean"] == [0.5] and card["normalisation"]["std"] == [0.25]
    assert "fc1.weight" in safetensors.numpy.load_file(files.weights)
    given = ("import", files.weights, "--data", "digits", "--architecture", "mlp")
    message = refused(*given, "--model", f"{NETWORKS}:not_normalised", "--out", tmp_path / "z")
    assert "--model" in message and "mean [0.5]" in message and not (tmp_path / "z").exists()
    assert bap(*given, "--model", f"{NETWORKS}:normalised", "--out", tmp_path / "z")[0] == 0
    same_bits(restore_network(tmp_path / "z"), restore_network(mlp))


def blob_shape():
    import plugins_for_tests

    return plugins_for_tests.blobs().test.image_shape


def test_masks_of_the_file_of_another_and_of_none(weights, run, bap, refused, tmp_path):
    given = ("import", weights, "--model", "mlp", "--data", "digits", "--out")
    masks = weights.with_name("model.masks.safetensors")
    tensors = safetensors.numpy.load_file(weights)
    tensors["fc1.weight"][tensors["fc1.weight"] > 3] = 0
    safetensors.numpy.save_file(tensors, weights)
    message = refused(*given, tmp_path / "y")
    assert "model.masks.safetensors" in message and "--masks nonzero" in message and not (tmp_path / "y").exists()
    assert bap(*given, tmp_path / "nonzero", "--masks", "nonzero")[0] == 0
    network = restore_network(tmp_path / "nonzero")
    assert np.array_equal(network.masks["fc1"]["kernel"], np.asarray(network.params["fc1"]["kernel"]) != 0)
    assert json.loads((tmp_path / "nonzero" / "config.json").read_text())["final_sparsity"] > 0.4
    masks.unlink()
    code, output, _ = bap(*given, tmp_path / "none")
    assert code == 0 and "everything is kept" in output
    assert all(np.all(mask) for mask in jax.tree.leaves(restore_network(tmp_path / "none").masks))


def test_half_precision_becomes_float32_and_is_told(weights, bap, tmp_path):
    tensors = safetensors.numpy.load_file(weights)
    weights.with_name("model.masks.safetensors").unlink()
    tensors = {name: (t.astype(np.float16) if name.startswith("fc") else t) for name, t in tensors.items()}
    safetensors.numpy.save_file(tensors, weights)
    code, output, _ = bap("import", weights, "--model", "mlp", "--data", "digits", "--out", tmp_path / "y")
    assert code == 0 and "4 tensors were float16 and are float32 now" in output
    stored = restore_network(tmp_path / "y").params["fc1"]["kernel"]
    assert stored.dtype == np.float32 and np.array_equal(stored, tensors["fc1.weight"].T.astype(np.float32))
    assert json.loads((tmp_path / "y" / "import.json").read_text())["converted"]["fc1.bias"] == "float16"


BAD_EXPORTS = {
    "format": (["--format", "onnx"], ["--format = 'onnx'", "safetensors"]),
    "layout": (["--layout", "tf"], ["--layout = 'tf'", "torch, jax or auto"]),
    "architecture": (["--architecture", "alexnet"], ["--architecture = 'alexnet'", "resnet18"]),
    "another_architecture": (["--architecture", "resnet18"], ["architecture = 'resnet18'", "stem_conv"]),
    "checkpoint": (["--checkpoint", "5"], ["--checkpoint = '5'", "one of [3, 7]"]),
    "suffix": (["--out", "weights.bin"], ["--out = 'weights.bin'", ".safetensors"]),
    "unwritable": (["--out", "/proc/no/model.safetensors"], ["--out", "can be written"]),
}


@pytest.mark.parametrize("name", BAD_EXPORTS)
def test_an_export_that_makes_no_sense(name, run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = BAD_EXPORTS[name]
    message = refused("export", run, *arguments)
    for part in expected:
        assert part in message
    assert not any(tmp_path.iterdir()) and not (run / "export").exists()


def test_a_run_that_is_not_there(refused, tmp_path):
    assert "config.json" in refused("export", tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{}")
    assert "none yet" in refused("export", tmp_path)


BAD_IMPORTS = {
    "model": (["--model", "resnet152"], ["--model = 'resnet152'", "resnet18"]),
    "another_model": (["--model", "lenet5"], ["no tensor conv1.", "it has fc2."]),
    "data": (["--data", "nosuchset"], ["nosuchset"]),
    "another_data": (["--data", f"{OWN}:blobs"], ["num_classes 10, here it is 3", "--data"]),
    "layout": (["--layout", "tf"], ["--layout = 'tf'"]),
    "another_layout": (["--layout", "jax"], ["no tensor params.fc1.bias", "it has"]),
    "architecture": (["--architecture", "vgg"], ["--architecture = 'vgg'"]),
    "masks": (["--masks", "all"], ["--masks = 'all'", "nonzero"]),
    "scores_of_no_sparsity": (["--masks", "scores"], ["--sparsity = None", "fraction"]),
    "a_sparsity_of_no_scores": (["--sparsity", "0.9"], ["--sparsity = 0.9", "--masks scores"]),
    "scores_that_are_not_there": (["--masks", "scores", "--sparsity", "0.9"], ["no popup_scores"]),
    "image_size": (["--image-size", "0"], ["--image-size = 0"]),
    "image_size_of_digits": (["--image-size", "32"], ["image_size = 32"]),
}


@pytest.mark.parametrize("name", BAD_IMPORTS)
def test_an_import_that_makes_no_sense_writes_nothing(name, weights, refused, tmp_path):
    arguments, expected = BAD_IMPORTS[name]
    options = {"--model": "mlp", "--data": "digits", "--out": tmp_path / "y"} | dict(
        zip(arguments[::2], arguments[1::2], strict=True)
    )
    message = refused("import", weights, *(part for pair in options.items() for part in pair))
    for part in expected:
        assert part in message
    assert not (tmp_path / "y").exists()


def change(weights, change_tensors):
    tensors = safetensors.numpy.load_file(weights)
    change_tensors(tensors)
    safetensors.numpy.save_file(tensors, weights)
    weights.with_name("model.masks.safetensors").unlink()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (lambda t: t.pop("fc2.bias"), "no tensor fc2.bias [128] (params/fc2/bias)"),
        (lambda t: t.update({"fc3.bias": np.ones(3, np.float32)}), "tensor fc3.bias [3], which this network has no place for"),
        (lambda t: t.update({"fc2.weight": t["fc2.weight"].T.copy()}), "fc2.weight is [256,128], expected [128,256]"),
        (lambda t: t["fc2.weight"].__setitem__((0, 0), np.nan), "fc2.weight holds NaN"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(changed, expected, weights, refused, tmp_path):
    change(weights, changed)
    message = refused("import", weights, "--model", "mlp", "--data", "digits", "--out", tmp_path / "y")
    assert expected in message and str(weights) in message
    assert not (tmp_path / "y").exists()


def test_files_that_cannot_be_read(weights, refused, tmp_path):
    given = ("--model", "mlp", "--data", "digits", "--out", tmp_path / "y")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "whole safetensors file" in refused("import", weights, *given)
    assert "a file with weights" in refused("import", tmp_path / "nothing.safetensors", *given)
    (tmp_path / "x.pt").write_bytes(b"PK")
    message = refused("import", tmp_path / "x.pt", *given)
    assert "x.pt" in message and "cut off or damaged" in message
    assert not (tmp_path / "y").exists()


def test_an_occupied_folder_is_refused_and_left_as_it_was(weights, run, refused, tmp_path):
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "notes.txt").write_text("mine")
    assert "--out" in refused("import", weights, "--model", "mlp", "--data", "digits", "--out", tmp_path / "y")
    assert [path.name for path in (tmp_path / "y").iterdir()] == ["notes.txt"]
    assert "--out" in refused("import", weights, "--model", "mlp", "--data", "digits", "--out", run)


def test_an_imported_run_cannot_be_trained_again(weights, refused, bap, tmp_path):
    assert bap("import", weights, "--model", "mlp", "--data", "digits", "--out", tmp_path / "y")[0] == 0
    message = refused("train", "--config", tmp_path / "y" / "config.json", "--out", tmp_path / "z")
    assert "'imported" in message and not (tmp_path / "z").exists()


def perceptron(hidden=(256, 128)):
    """A state dict of the perceptron on digits."""
    generator = np.random.default_rng(0)
    names, sizes = [*(f"fc{layer}" for layer in range(1, len(hidden) + 1)), "head"], [64, *hidden, 10]
    weights = {}
    for name, inputs, outputs in zip(names, sizes[:-1], sizes[1:], strict=True):
        weights[f"{name}.weight"] = generator.standard_normal((outputs, inputs), np.float32)
        weights[f"{name}.bias"] = generator.standard_normal(outputs, np.float32)
    return weights


def test_a_pytorch_state_dict_becomes_a_run(bap, tmp_path):
    weights = perceptron()
    torch_save(checkpoint("state_dict", {f"module.{name}": tensor for name, tensor in weights.items()}), tmp_path / "x.pth")
    code, output, error = bap("import", tmp_path / "x.pth", "--model", "mlp", "--data", "digits", "--out", tmp_path / "y")
    assert code == 0 and "everything is kept" in output, error
    stored = restore_network(tmp_path / "y").params["fc2"]["kernel"]
    assert np.array_equal(stored, weights["fc2.weight"].T)


SMALL = ("--model", f"{NETWORKS}:not_normalised", "--architecture", "mlp", "--data", "digits", "--out")


def test_which_of_several_networks_is_chosen_and_said(bap, refused, tmp_path):
    weights, average = perceptron((6,)), {name: 2 * tensor for name, tensor in perceptron((6,)).items()}
    file = torch_save({"state_dict": weights, "model_ema": average, "epoch": 3}, tmp_path / "x.pth")
    code, output, error = bap("import", file, *SMALL, tmp_path / "y")
    assert code == 0, error
    assert "note: the weights are those under 'state_dict'; others stand under 'model_ema': --key takes them" in " ".join(
        output.split()
    )
    assert bap("import", file, *SMALL, tmp_path / "z", "--key", "model_ema")[0] == 0
    for run, expected in (("y", weights), ("z", average)):
        assert np.array_equal(restore_network(tmp_path / run).params["head"]["bias"], expected["head.bias"])
    assert json.loads((tmp_path / "z" / "import.json").read_text())["key"] == "model_ema"
    assert "one of 'state_dict' (4 tensors), 'model_ema' (4 tensors)" in refused(
        "import", file, *SMALL, tmp_path / "n", "--key", "x"
    )


def test_zeros_that_count_as_kept_are_said(bap, tmp_path):
    weights = perceptron((6,))
    weights["fc1.weight"][np.random.default_rng(1).random((6, 64)) < 0.9] = 0
    zeros, total = np.sum(weights["fc1.weight"] == 0), 6 * 64 + 60
    file = torch_save(weights, tmp_path / "x.pth")
    _, output, _ = bap("import", file, *SMALL, tmp_path / "y")
    told = f"note: {100 * zeros / total:.1f} % of the weights that count as kept are zero; --masks nonzero counts them as pruned"
    assert told in " ".join(output.split())
    _, output, _ = bap("import", file, *SMALL, tmp_path / "z", "--masks", "nonzero")
    assert "note:" not in output
    _, output, _ = bap("import", torch_save(perceptron((6,)), tmp_path / "w.pth"), *SMALL, tmp_path / "w")
    assert "note:" not in output


def change_card(weights, change):
    """The file with another card; the masks beside it no longer belong to it."""
    tensors, card = read_tensors(weights)
    change(card)
    write_tensors(weights, tensors, card)
    weights.with_name("model.masks.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda card: card["input"].update(shape=[1, 6, 6]),
            ["--data = 'digits'", "input.shape [1, 6, 6], here it is [1, 8, 8]"],
        ),
        (lambda card: card["input"].update(shape="\x1b[31m"), ["--data", r'input.shape "\u001b[31m"']),
        (lambda card: card["input"].update(bounds=[-1.0, 1.0]), ["--data", "input.bounds [-1.0, 1.0], here it is [0.0, 1.0]"]),
        (lambda card: card.update(num_classes=100), ["--data", "num_classes 100, here it is 10"]),
        (lambda card: card.update(input=3), ["--data", "input 3"]),
        (lambda card: card["normalisation"].update(std=[-0.5]), ["--model.std = (-0.5,)", "above 0"]),
        (lambda card: card.update(normalisation=[["x"]]), ["--model", "normalisation"]),
    ],
)
def test_a_field_in_which_the_card_differs_is_named(change, expected, weights, refused, tmp_path):
    change_card(weights, change)
    message = refused("import", weights, "--model", "mlp", "--data", "digits", "--out", tmp_path / "y")
    for part in (*expected, str(weights)):
        assert part in message
    assert not (tmp_path / "y").exists()


def test_a_card_that_says_less_is_enough(weights, bap, tmp_path):
    change_card(weights, lambda card: [card.pop(name) for name in ("input", "normalisation", "num_classes")])
    assert bap("import", weights, "--model", "mlp", "--data", "digits", "--out", tmp_path / "y")[0] == 0


def test_batch_norm_is_that_of_the_layers(refused, tmp_path):
    """The user's own network with another epsilon: in the card, and not taken for one with PyTorch's."""
    own = f"{NETWORKS}:with_epsilon"
    files, card = export_run(make_run(tmp_path / "x", model=own), trust=Trust(names=frozenset({own})))
    assert card["batch_norm"]["epsilon"] == 1e-3 and card["batch_norm"]["momentum"] == 0.01
    message = refused("import", files.weights, "--model", "resnet8", "--data", "digits", "--out", tmp_path / "y")
    assert "--model = 'resnet8'" in message and "batch_norm.epsilon 0.001, here it is 1e-05" in message


def test_the_size_that_a_picture_was_resized_to_is_asked_for():
    from bap_jax.export import Difference
    from bap_jax.runs.weights import _size_of

    assert _size_of(Difference("input.shape", [3, 24, 24], [3, 32, 32])) == 24
    assert _size_of(Difference("input.shape", [24, 24, 3], [32, 32, 3])) == 24
    for theirs in ([3, 24, 20], [1, 24, 24], [24], "x", [3, "x", 24]):
        assert _size_of(Difference("input.shape", theirs, [3, 32, 32])) is None


def test_a_normalisation_in_the_file_has_to_be_the_model_s(bap, refused, tmp_path):
    weights = {f"1.{name}": tensor for name, tensor in perceptron((6,)).items()}
    buffers = {"0.mean": np.full((1, 1, 1, 1), 0.5, np.float32), "0.std": np.full((1, 1, 1, 1), 0.25, np.float32)}
    file = torch_save(buffers | weights, tmp_path / "x.pth")
    message = refused("import", file, *SMALL, tmp_path / "y")
    assert 'bap.models.build("mlp", num_classes=..., mean=(0.5,), std=(0.25,))' in message and not (tmp_path / "y").exists()
    given = [part.replace("not_normalised", "normalised") for part in SMALL]
    code, output, error = bap("import", file, *given, tmp_path / "y")
    assert code == 0 and "mean [0.5], std [0.25]" in " ".join(output.split()), error


def test_escape_codes_never_come_out(bap, tmp_path):
    for content in ({"a\x1b[31m.b": np.ones(1)}, {"\x1b[31m": 3}, {"state_dict": {"w.w": np.ones(1), "\x1b[31m": 3}}):
        code, output, error = bap("import", torch_save(content, tmp_path / "x.pth"), *SMALL, tmp_path / "y")
        assert code == 2 and "\x1b" not in output + error and r"\x1b[31m" in error
    code, output, error = bap("import", tmp_path / "no\x1b[31m\nfile.pt", *SMALL, tmp_path / "y")
    assert code == 2 and "\x1b" not in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("command", ["export", "import"])
def test_both_commands_explain_themselves(command, bap):
    code, output, _ = bap(command, "--help")
    assert code == 0 and f"usage: bap {command}" in " ".join(output.split()) and len(output) > 300
