"""`bap export --format stablehlo`: a program that runs in a process without this library, and comes back as a network."""

import json
import subprocess
import sys

import numpy as np
import pytest
from random_runs import make_run

from bap_jax.errors import SettingError
from bap_jax.runs.program_file import export_program
from bap_jax.runs.restore import load
from tools import serve

flatbuffers = pytest.importorskip("flatbuffers")
IMAGES = np.random.default_rng(1).uniform(size=(3, 8, 8, 1)).astype(np.float32)

# The second line makes this library, and all that it brings, impossible to import.
SERVE = """
import sys
sys.modules.update(dict.fromkeys(["bap_jax", "flax", "optax", "chex", "orbax", "safetensors"]))
import jax, numpy as np
images, logits = np.load("images.npy"), {}
for name in ("inside", "beside"):
    program = jax.export.deserialize(bytearray(open(f"{name}.stablehlo", "rb").read()))
    weights = [dict(np.load(f"{name}.stablehlo.npz"))] if name == "beside" else []
    one, logits[name] = (jax.jit(program.call)(*weights, images[:size]) for size in (1, len(images)))
    print(program.platforms, program.in_avals[-1].shape, one.shape)
np.savez("logits.npz", **logits)
try:
    import bap_jax
except ImportError:
    print("alone")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a convolutional network on digits. Not to be changed."""
    return make_run(tmp_path_factory.mktemp("runs") / "x", model="lenet5")


def test_a_program_runs_without_this_library(run, bap, tmp_path):
    for weights in ("inside", "beside"):
        path = tmp_path / f"{weights}.stablehlo"
        code, output, error = bap("export", run, "--format", "stablehlo", "--weights", weights, "--out", path)
        assert code == 0 and f"program: {path} (" in output, error
        assert (tmp_path / f"{weights}.stablehlo.npz").exists() == (weights == "beside") == ("weights: " in output)
    np.save(tmp_path / "images.npy", IMAGES)
    done = subprocess.run([sys.executable, "-c", SERVE], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("('cpu', 'cuda', 'tpu') (batch, 8, 8, 1) (1, 10)") == 2 and "alone" in done.stdout
    for weights in ("inside", "beside"):
        assert serve.main([str(tmp_path / f"{weights}.stablehlo"), "--batch", "2", "--rounds", "2"])["rate"] > 0
    wanted = np.asarray(load(run)(IMAGES))
    with np.load(tmp_path / "logits.npz") as found:
        for weights in ("inside", "beside"):
            np.testing.assert_allclose(found[weights], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_a_program_is_a_network_that_is_attacked(tmp_path):
    plan = {"attacks": "pgd,deepfool", "norm": "l2", "num_steps": 3, "epsilon": 0.1, "limit": 24, "controls": False}
    run = make_run(tmp_path / "x")
    files, card = export_program(run, out=tmp_path / "net.stablehlo", weights="beside", gradients=True)
    net, there = load(files["program"]), load(run)
    found, wanted = net.evaluate(**plan), there.evaluate(**plan)
    assert found.clean_accuracy == wanted.clean_accuracy
    for name, accuracies in wanted.robust_accuracy.items():
        np.testing.assert_array_equal(found.robust_accuracy[name], accuracies)
    assert net.about["gradients"] and net.params.keys() >= {"params.fc1.kernel"} and card["weights_are"] == "beside"
    with pytest.raises(SettingError, match="train"):
        net.model.apply(net.params, {}, IMAGES, train=True)


def test_the_same_network_is_the_same_bytes_and_another_is_refused(run, tmp_path, refused):
    (one, _), (other, _) = (export_program(run, out=tmp_path / name / "net.stablehlo", weights="beside") for name in "ab")
    for which in ("program", "weights"):
        assert one[which].read_bytes() == other[which].read_bytes()
    path = one["program"]
    plan = {"attacks": "fgsm", "epsilon": 0.1, "limit": 4, "controls": False}
    with pytest.raises(SettingError, match="--gradients"):
        load(path).evaluate(**plan)
    for file in (path, one["weights"]):
        content = file.read_bytes()
        for wrong in (content[:-9], content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
            file.write_bytes(wrong)
            with pytest.raises(SettingError, match=file.name):
                load(path)
        file.write_bytes(content)
    card = json.loads(one["card"].read_text())
    one["card"].write_text(json.dumps(card | {"sha256": None}))
    with pytest.raises(SettingError, match="card"):
        load(path)
    assert "--weights" in refused("export", run, "--format", "stablehlo", "--weights", "aside")
    assert "--gradients" in refused("export", run, "--format", "packed", "--gradients")
    assert "--out" in refused("export", run, "--format", "stablehlo", "--out", tmp_path / "x.safetensors")
