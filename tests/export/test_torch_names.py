"""Names and shapes in PyTorch, written down here independently of the code."""

import functools

import jax
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.export import ARCHITECTURES, entries, layout_of
from bap_jax.models import NETWORKS, build

NORM = ("weight", "bias", "running_mean", "running_var")


def shapes_of(name, image_shape=(32, 32, 3), layout="torch", **options):
    """{name in the file: shape} of a network of full size; nothing is computed."""
    model = build(name, num_classes=10, **options)
    network = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *image_shape), np.float32))
    found = entries(*network, layout=layout, architecture=name, image_shape=image_shape)
    return {entry.name: entry.file_shape for entry in found}


def norms(name, channels):
    return {f"{name}.{leaf}": (channels,) for leaf in NORM}


def test_every_network_has_names():
    assert ARCHITECTURES.keys() == NETWORKS.keys()


def test_resnet18():
    expected = {"conv1.weight": (64, 3, 3, 3)} | norms("bn1", 64) | {"linear.weight": (10, 512), "linear.bias": (10,)}
    before = 64
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for place in range(2):
            block = f"layer{stage}.{place}"
            expected |= {f"{block}.conv1.weight": (channels, before, 3, 3), f"{block}.conv2.weight": (channels, channels, 3, 3)}
            expected |= norms(f"{block}.bn1", channels) | norms(f"{block}.bn2", channels)
            if before != channels:
                expected |= {f"{block}.shortcut.0.weight": (channels, before, 1, 1)} | norms(f"{block}.shortcut.1", channels)
            before = channels
    assert shapes_of("resnet18") == expected
    assert len(expected) == 62 + 40  # weights, and the statistics of 20 BatchNorms


def test_resnet8_has_three_stages_of_one_block():
    names = shapes_of("resnet8")
    blocks = {name.rpartition(".conv1")[0] for name in names if name.endswith(".conv1.weight")}
    assert blocks == {"layer1.0", "layer2.0", "layer3.0"}
    assert "layer2.0.shortcut.0.weight" in names and "layer1.0.shortcut.0.weight" not in names


@pytest.mark.parametrize(
    ("batch_norm", "places"),
    [
        (False, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
        (True, (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)),
    ],
)
def test_vgg16_counts_its_features_as_everybody_does(batch_norm, places):
    names = shapes_of("vgg16", batch_norm=batch_norm, hidden=())
    convolutions = {int(name.split(".")[1]) for name, shape in names.items() if len(shape) == 4}
    assert convolutions == set(places)
    assert names["classifier.weight"] == (10, 512) and names["features.0.weight"] == (64, 3, 3, 3)
    assert ("features.1.running_var" in names) == batch_norm


def test_vgg16_with_hidden_layers():
    names = shapes_of("vgg16")
    shapes = [names[f"classifier.{number}.weight"] for number in range(4)]
    assert shapes == [(4096, 512), (4096, 4096), (1024, 4096), (10, 1024)]


def test_wideresnet():
    names = shapes_of("wideresnet", depth=16, width=2)
    assert names["conv1.weight"] == (16, 3, 3, 3) and names["fc.weight"] == (10, 128)
    assert {name for name in names if "convShortcut" in name} == {f"block{n}.layer.0.convShortcut.weight" for n in (1, 2, 3)}
    assert names["block3.layer.1.bn2.running_mean"] == (128,) and names["bn1.weight"] == (128,)


def test_the_small_networks_keep_their_names():
    assert shapes_of("lenet5", (28, 28, 1)) == {
        **{"conv1.weight": (32, 1, 5, 5), "conv1.bias": (32,), "conv2.weight": (64, 32, 5, 5), "conv2.bias": (64,)},
        **{"fc1.weight": (84, 3136), "fc1.bias": (84,), "head.weight": (10, 84), "head.bias": (10,)},
    }
    assert shapes_of("mlp", (8, 8, 1))["fc1.weight"] == (256, 64)
    assert shapes_of("fitnet4")["conv2_5.weight"] == (80, 80, 3, 3)


def test_the_layout_jax_has_our_paths_and_shapes():
    names = shapes_of("resnet8", layout="jax")
    assert names["params.stem_conv.kernel"] == (3, 3, 3, 16)
    assert names["model_state.batch_stats.block2.shortcut_bn.var"] == (32,)
    assert layout_of(tuple(names)) == "jax" and layout_of(tuple(shapes_of("resnet8"))) == "torch"


@functools.cache
def small_shapes(name):
    options = (
        {"depth": 10, "width": 1} if "wide" in name else {"blocks": (1, 1, 1, 1)} if name in ("resnet34", "resnet50") else {}
    )
    model = build(name, num_classes=10, **options)
    return jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("other", NETWORKS)
def test_the_names_of_another_architecture_are_not_taken(name, other):
    family = dict.fromkeys(("resnet8", "resnet18", "resnet34", "resnet50"), "resnet")  # which differ in their shapes
    family |= dict.fromkeys(("vgg16", "vgg16_bn", "vgg16_survey"), "vgg16") | {
        "dm_wideresnet": "wideresnet",
        "merkle_cnn": "lenet5",
    }
    if family.get(name, name) == family.get(other, other):
        return
    network = small_shapes(name)
    with pytest.raises(SettingError, match="architecture"):
        entries(*network, layout="torch", architecture=other, image_shape=(16, 16, 3))


def test_what_makes_no_sense_is_refused():
    params = {"head": {"kernel": np.zeros((64, 10))}}
    for options, named in [
        ({"layout": "tf"}, "layout = 'tf'"),
        ({"layout": "torch"}, "architecture = None"),
        ({"layout": "torch", "architecture": "alexnet"}, "architecture = 'alexnet'"),
        ({"layout": "torch", "architecture": "mlp"}, "image_shape"),
        ({"layout": "torch", "architecture": "mlp", "image_shape": (7, 8, 1)}, "has 64 inputs"),
    ]:
        with pytest.raises(SettingError, match=named):
            entries(params, {}, **options)
    with pytest.raises(SettingError, match=r"a/b is also written as params\.a\.b"):
        entries({"a": {"b": np.ones(2)}, "a.b": np.ones(2)}, {}, layout="jax")
