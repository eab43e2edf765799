"""docs/weights.md: its networks are those that it says, and its tables name tensors that exist."""

import re
from pathlib import Path

import jax
import numpy as np

from bap_jax.export import entries
from bap_jax.models import build, from_linen

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")


def names(model, architecture):
    network = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    return {entry.name for entry in entries(*network, layout="torch", architecture=architecture, image_shape=(32, 32, 3))}


def test_the_factories_build_the_common_networks():
    _, factories = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made: dict = {}
    exec(factories, made)
    settings = {"num_classes": 10, "conv": "plain", "axis_name": None, "mean": None, "std": None}
    found = names(from_linen(made["wrn34"](**settings)), "wideresnet")
    assert {"block3.layer.4.conv2.weight", "fc.bias"} <= found and "block3.layer.5.conv2.weight" not in found
    network = made["normalised_resnet18"](**settings)
    assert network.std == (0.2023, 0.1994, 0.2010) and "layer4.1.bn2.running_var" in names(from_linen(network), "resnet18")


def test_the_numbers_of_features_are_right():
    rows = [line for line in PAGE.splitlines() if line.startswith(("| `conv1_1`", "| with BatchNorm"))]
    for row, batch_norm in zip(rows, (False, True), strict=True):
        told = {int(number) for number in re.findall(r"(?:features)?\.(\d+)`", row.split("|")[2])}
        found = names(build("vgg16", num_classes=10, batch_norm=batch_norm), "vgg16")
        convolutions = {int(name.split(".")[1]) for name in found if re.fullmatch(r"features\.\d+\.bias", name)}
        convolutions -= {int(name.split(".")[1]) for name in found if name.endswith("running_mean")}
        assert told == convolutions
