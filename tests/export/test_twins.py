"""The networks of the field: names, shapes and logits of their twins in PyTorch, whose logits are recorded."""

import json

import jax
import numpy as np
import pytest
import torch_twins

from bap_jax.errors import CheckpointError, SettingError
from bap_jax.export import entries, import_network, normalisation_in
from bap_jax.models import build

LOGITS = json.loads(torch_twins.RECORDED.read_text())


def twin(case):
    """(model, its shapes, the tensors of its file, how they are read) with the numbers that the twin had, by its names."""
    name, side, options, _ = torch_twins.CASES[case]
    model = build(name, num_classes=10, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, side, side, 3), np.float32))
    reading = {"architecture": name, "image_shape": (side, side, 3)}
    found = entries(*shapes, layout="torch", **reading)
    return model, shapes, {entry.name: torch_twins.drawn(entry.name, entry.file_shape) for entry in found}, reading


def check(case):
    model, shapes, tensors, reading = twin(case)
    network = import_network(tensors, *shapes, **reading)
    images = torch_twins.pictures(reading["image_shape"][0])
    run = jax.jit(lambda params, state: model.apply(params, state, images, train=False)[0].logits)
    np.testing.assert_allclose(run(network.params, network.model_state), LOGITS[case], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [case for case, (*_, long) in torch_twins.CASES.items() if not long])
def test_the_logits_are_those_of_the_twin(case):
    check(case)


@pytest.mark.soak
@pytest.mark.parametrize("case", [case for case, (*_, long) in torch_twins.CASES.items() if long])
def test_the_logits_of_whole_networks_are_those_of_the_twin(case):
    check(case)


def test_the_recorded_logits_are_those_of_this_torch():
    torch = pytest.importorskip("torch")
    cases = [case for case, (*_, long) in torch_twins.CASES.items() if not long]
    for case, logits in torch_twins.record(torch, cases).items():
        np.testing.assert_allclose(logits, LOGITS[case], rtol=1e-5, atol=1e-5)


def test_a_stage_that_trades_never_uses_is_passed_by():
    _, shapes, tensors, reading = twin("wideresnet")
    stage = {name.replace("block1", "sub_block1"): tensor + 1 for name, tensor in tensors.items() if name.startswith("block1.")}
    plain = import_network(tensors, *shapes, **reading)
    for prefix in ("", "module."):
        given = {prefix + name: tensor for name, tensor in (tensors | stage).items()}
        jax.tree.map(np.testing.assert_array_equal, import_network(given, *shapes, **reading).params, plain.params)
    with pytest.raises(CheckpointError, match="sub_block2"):
        import_network(tensors | {"sub_block2.x": np.ones(1)}, *shapes, **reading)


@pytest.mark.parametrize(
    ("case", "pairs"),
    [
        ("resnet34", {"shortcut": "downsample", "linear": "fc"}),
        ("resnet18, imagenet stem", {"downsample": "shortcut", "fc": "linear"}),
    ],
)
def test_both_families_names_of_a_resnet_are_understood(case, pairs):
    _, shapes, tensors, reading = twin(case)
    given = {}
    for name, tensor in tensors.items():
        for ours, theirs in pairs.items():
            name = name.replace(ours, theirs)
        given[name] = tensor
    assert given.keys() != tensors.keys()
    expected = import_network(tensors, *shapes, **reading).params
    jax.tree.map(np.testing.assert_array_equal, import_network(given, *shapes, **reading).params, expected)


def test_scores_become_masks():
    """As HYDRA does it: of each layer's |scores|, sorted, the first int((1 − k)·n) go."""
    _, shapes, tensors, reading = twin("wideresnet")
    layers = [name for name, tensor in tensors.items() if tensor.ndim > 1]
    scores = {name.removesuffix("weight") + "popup_scores": torch_twins.drawn(name + "!", tensors[name].shape) for name in layers}
    given = {f"module.{name}": tensor for name, tensor in (tensors | scores).items()}
    network = import_network(given, *shapes, keep="scores", sparsity=0.9, **reading)
    kernel, mask = network.params["block1"]["conv1"]["kernel"], network.masks["block1"]["conv1"]["kernel"]
    theirs = np.abs(scores["block1.layer.0.conv1.popup_scores"])
    cut = np.sort(theirs, axis=None)[int(0.9 * theirs.size)]
    np.testing.assert_array_equal(mask, (theirs >= cut).transpose(2, 3, 1, 0))
    assert mask.sum() == theirs.size - int(0.9 * theirs.size)
    np.testing.assert_array_equal(kernel, np.where(mask, tensors["block1.layer.0.conv1.weight"].transpose(2, 3, 1, 0), 0))
    assert network.masks["head"]["kernel"].sum() == 640 - 576
    with pytest.raises(CheckpointError, match="--masks scores with --sparsity"):
        import_network(given, *shapes, **reading)
    with pytest.raises(CheckpointError, match="no popup_scores"):
        import_network(tensors, *shapes, keep="scores", sparsity=0.9, **reading)
    for wrong in ({"keep": "scores"}, {"sparsity": 0.5}, {"keep": "scores", "sparsity": 1.0}):
        with pytest.raises(SettingError, match="sparsity"):
            import_network(given, *shapes, **wrong, **reading)


def test_the_normalisation_of_a_file_makes_the_network_that_has_it():
    """DeepMind's files have the buffers beside the weights."""
    _, shapes, tensors, reading = twin("dm_wideresnet")
    buffers = {
        name: np.array(values, np.float32).reshape(3, 1, 1)
        for name, values in (("mean", torch_twins.MEAN), ("std", torch_twins.STD))
    }
    found = normalisation_in(tensors | buffers, 3)
    assert found.settings == {"mean": torch_twins.MEAN, "std": torch_twins.STD}
    import_network(tensors | buffers, *shapes, normalisation=found.settings, **reading)
    with pytest.raises(CheckpointError, match="normalises its input"):
        import_network(tensors | buffers, *shapes, **reading)
