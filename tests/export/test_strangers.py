"""Tensors under the names of others: wrappers before some of them, scores among them, a normalisation beside them."""

import numpy as np
import pytest

from bap_jax.errors import CheckpointError
from bap_jax.export import differences, export_network, import_network
from bap_jax.types import Bounds


@pytest.fixture(scope="module")
def network():
    """(state dict, params) of a small perceptron for pictures of three channels."""
    generator = np.random.default_rng(0)
    params = {
        name: {"kernel": generator.standard_normal(shape, np.float32), "bias": np.zeros(shape[1], np.float32)}
        for name, shape in (("fc1", (12, 4)), ("head", (4, 10)))
    }
    masks = {name: {"kernel": np.ones(layer["kernel"].shape, bool), "bias": np.array(True)} for name, layer in params.items()}
    return export_network(params, masks, {}, architecture="mlp", image_shape=(2, 2, 3)).tensors, params


def filled(tensors, params, **options):
    return import_network(tensors, params, {}, architecture="mlp", image_shape=(2, 2, 3), **options).params


@pytest.mark.parametrize("prefix", ["module.", "model.", "0.", "1.", "module.model.", "_orig_mod.net.1."])
def test_prefixes_before_some_names_only(prefix, network):
    state, params = network
    for odd in (0, 1):
        names = {f"{prefix}{name}" if number % 2 == odd else name: tensor for number, (name, tensor) in enumerate(state.items())}
        found = filled(names, params)
        assert all(np.array_equal(found[layer]["kernel"], params[layer]["kernel"]) for layer in params)


def test_two_tensors_of_one_name_are_refused(network):
    state, params = network
    with pytest.raises(CheckpointError, match=r"fc1\.bias and model\.fc1\.bias, which are both fc1\.bias here"):
        filled(state | {"model.fc1.bias": state["fc1.bias"] + 1}, params)


@pytest.mark.parametrize("name", ["fc1.popup_scores", "module.fc1.popup_scores", "fc1.k_score", "fc1.scores"])
def test_scores_are_named(name, network):
    state, params = network
    with pytest.raises(CheckpointError, match=rf"has {name}, scores by which a pruning method"):
        filled(state | {name: np.ones((4, 12), np.float32)}, params)


MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)
NAMES = [("mean", "std"), ("mu", "sigma"), ("0.mean", "0.std"), ("module.normalize.mean", "module.normalize.std")]


@pytest.mark.parametrize(("mean", "std"), NAMES)
def test_a_normalisation_is_shown_with_the_line_that_makes_it(mean, std, network):
    state, params = network
    buffers = {mean: np.array(MEAN, np.float32).reshape(1, 3, 1, 1), std: np.array(STD, np.float32).reshape(3, 1, 1)}
    line = (
        r'bap\.models\.build\("mlp", num_classes=\.\.\., mean=\(0\.4914, 0\.4822, 0\.4465\), std=\(0\.2023, 0\.1994, 0\.201\)\)'
    )
    for ours in (None, {"mean": [0.0] * 3, "std": [1.0] * 3}, {"mean": list(MEAN), "std": [1.0] * 3}):
        with pytest.raises(CheckpointError, match=line):
            filled(state | buffers, params, normalisation=ours)
    same = {"mean": list(MEAN), "std": list(STD)}
    assert np.array_equal(filled(state | buffers, params, normalisation=same)["head"]["kernel"], params["head"]["kernel"])


def test_one_number_stands_for_all_channels_and_none_at_all_is_nothing(network):
    state, params = network
    with pytest.raises(CheckpointError, match=r"mean=\(0\.5, 0\.5, 0\.5\)\)"):
        filled(state | {"mean": np.array([0.5], np.float32)}, params)
    filled(state | {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}, params)
    with pytest.raises(CheckpointError, match=r"tensor mean \[7\], which this network has no place for"):
        filled(state | {"mean": np.zeros(7, np.float32)}, params)


HERE = {"num_classes": 10, "image_shape": (8, 8, 3), "bounds": Bounds(), "normalisation": {"mean": [0.0] * 3, "std": [1.0] * 3}}
CARD = {
    "num_classes": 10,
    "input": {"axes": "NCHW", "shape": [3, 8, 8], "bounds": [0.0, 1.0]},
    "normalisation": {"mean": [0, 0, 0], "std": [1, 1, 1]},
    "batch_norm": {"epsilon": 1e-5, "momentum": 0.3},
}


@pytest.mark.parametrize(
    ("part", "change", "field"),
    [
        ("input", {}, None),
        ("input", {"axes": "NHWC", "shape": [8, 8, 3]}, None),
        ("batch_norm", {"epsilon": 1e-3}, "batch_norm.epsilon"),
        ("batch_norm", {"epsilon": None}, None),
        ("input", {"shape": [3, 24, 24]}, "input.shape"),
        ("input", {"shape": [3, [8], 8]}, "input.shape"),
        ("input", {"bounds": [0, 255]}, "input.bounds"),
        ("input", {"bounds": {"lower": 0}}, "input.bounds"),
        ("normalisation", {"mean": [0.5, 0, 0]}, "normalisation.mean"),
        ("normalisation", {"mean": "x"}, "normalisation.mean"),
    ],
)
def test_a_card_is_compared_field_by_field(part, change, field):
    found = differences(CARD | {part: CARD[part] | change}, **HERE, batch_norm={"epsilon": 1e-5})
    assert [difference.field for difference in found] == ([] if field is None else [field])


def test_what_is_not_known_is_not_compared():
    assert not differences({}, **HERE, batch_norm={"epsilon": 1e-5})
    assert not differences(CARD, **HERE | {"normalisation": None}, batch_norm=None)
    assert [found.field for found in differences(CARD | {"num_classes": 3, "input": "x"}, **HERE, batch_norm=None)] == [
        "num_classes",
        "input",
    ]
