"""Whole networks: to tensors and back to the bit, and a forward pass by hand on the tensors in PyTorch's layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import CheckpointError, SettingError
from bap_jax.export import export_network, import_network
from bap_jax.mathematics.group_masks import group_masks
from bap_jax.models import build
from bap_jax.structure import groups_of

SMALL = {
    "mlp": ((6, 5, 3), {}),
    "lenet5": ((8, 12, 2), {"hidden": 7}),
    "merkle_cnn": ((12, 16, 2), {}),
    "fitnet4": ((8, 12, 3), {}),
    "vgg16": ((32, 64, 3), {"hidden": (9, 8), "batch_norm": True}),
    "resnet8": ((8, 8, 3), {}),
    "resnet18": ((8, 8, 3), {"widths": (4, 8, 12, 16)}),
    "wideresnet": ((8, 8, 3), {"depth": 16, "width": 1}),
}


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape and mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("layout", ["torch", "jax"])
@pytest.mark.parametrize("name", SMALL)
def test_there_and_back_to_the_bit(name, layout, make_network):
    image_shape, options = SMALL[name]
    _, params, masks, model_state = make_network(name, image_shape, **options)
    settings = {"architecture": name, "image_shape": image_shape}
    exported = export_network(params, masks, model_state, layout=layout, **settings)
    imported = import_network(exported.tensors, params, model_state, masks=exported.masks, **settings)
    same_bits(imported.params, jax.tree.map(lambda leaf, mask: np.where(mask, leaf, np.float32(0)), params, masks))
    same_bits(imported.masks, masks)
    same_bits(imported.model_state, model_state)
    assert imported.layout == layout and imported.converted == {}
    assert all(np.all(exported.tensors[name][~mask] == 0) for name, mask in exported.masks.items())


def convolution(images, weight, bias):
    """SAME, NCHW, OIHW."""
    margin = weight.shape[-1] // 2
    padded = np.pad(images, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    return np.einsum("bihwyx,oiyx->bohw", patches, weight) + bias[:, None, None]


def pool(images):
    batch, channels, height, width = images.shape
    return images.reshape(batch, channels, height // 2, 2, width // 2, 2).max((3, 5))


def test_a_lenet_by_hand_in_pytorch_s_layout(make_network):
    """Channels first throughout, images that are not square: any slip in axes or flattening shows."""
    model, params, masks, model_state = make_network("lenet5", (8, 12, 2), hidden=7)
    exported = export_network(params, masks, model_state, layout="torch", architecture="lenet5", image_shape=(8, 12, 2))
    t, images = exported.tensors, np.random.default_rng(3).random((4, 8, 12, 2), np.float32)
    x = images.transpose(0, 3, 1, 2)
    for layer in ("conv1", "conv2"):
        x = pool(np.maximum(convolution(x, t[f"{layer}.weight"], t[f"{layer}.bias"]), 0))
    x = np.maximum(x.reshape(4, -1) @ t["fc1.weight"].T + t["fc1.bias"], 0)
    by_hand = x @ t["head.weight"].T + t["head.bias"]
    pruned = jax.tree.map(lambda leaf, mask: np.where(mask, leaf, np.float32(0)), params, masks)
    logits = model.apply(pruned, model_state, images, train=False)[0].logits
    np.testing.assert_allclose(by_hand, logits, rtol=1e-4, atol=1e-4)


LIKE = {"fc1": {"kernel": np.ones((4, 3), np.float32), "bias": np.ones(3, np.float32)}}
LIKE |= {"head": {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}}
MLP = {"architecture": "mlp", "image_shape": (2, 2, 1)}


def tensors(**changed):
    generator = np.random.default_rng(0)
    found = {"fc1.weight": (3, 4), "fc1.bias": (3,), "head.weight": (2, 3), "head.bias": (2,)}
    made = {name: generator.normal(size=shape).astype(np.float32) for name, shape in found.items()}
    made |= {name.replace("__", "."): value for name, value in changed.items()}
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fc1__bias": None}, r"x has no tensor fc1\.bias \[3\] \(params/fc1/bias\)$"),
        ({"fc1__bias": None, "fc9__bias": np.ones(3)}, r"no tensor fc1\.bias .* it has fc9\.bias"),
        ({"extra__weight": np.ones((2, 2))}, r"extra\.weight \[2,2\], which this network has no place for"),
        ({"head__weight": np.ones((3, 2))}, r"head\.weight is \[3,2\], expected \[2,3\] \(params/head/kernel\)"),
        ({"fc1__bias": np.array([1, np.nan, 2])}, r"fc1\.bias holds NaN"),
        ({"fc1__bias": np.array([1, 1e300, 2])}, r"fc1\.bias holds NaN or infinity"),
        ({"fc1__bias": np.ones(3, bool)}, r"fc1\.bias is of type bool"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(changed, message):
    with pytest.raises(CheckpointError, match=message):
        import_network(tensors(**changed), LIKE, {}, where="x", **MLP)


def test_other_types_become_float32_and_are_told():
    import jax.numpy as jnp

    given = tensors(fc1__bias=np.array([0.5, 1, 2], np.float16), head__bias=np.array([1, 2]).astype(jnp.bfloat16))
    imported = import_network(given, LIKE, {}, **MLP)
    assert imported.converted == {"fc1.bias": "float16", "head.bias": "bfloat16"}
    assert imported.params["fc1"]["bias"].dtype == np.float32 and imported.params["fc1"]["bias"].tolist() == [0.5, 1, 2]


def test_masks_come_from_the_file_or_from_zeros():
    weight = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 4.0]], np.float32)
    given = tensors(head__weight=weight)
    everything = import_network(given, LIKE, {}, **MLP)
    assert all(np.all(mask) for mask in jax.tree.leaves(everything.masks))
    assert everything.masks["head"]["kernel"].shape == (3, 2) and everything.masks["head"]["bias"].shape == ()
    nonzero = import_network(given, LIKE, {}, keep="nonzero", **MLP)
    assert nonzero.masks["head"]["kernel"].tolist() == (weight.T != 0).tolist()
    some = import_network(given, LIKE, {}, masks={"head.weight": weight > 2}, **MLP)
    assert some.masks["head"]["kernel"].tolist() == (weight.T > 2).tolist()
    assert some.params["head"]["kernel"].tolist() == np.where(weight > 2, weight, 0).T.tolist()
    assert some.masks["fc1"]["kernel"].shape == ()  # a file of masks names all that is prunable
    with pytest.raises(SettingError, match="keep = 'all'"):
        import_network(given, LIKE, {}, keep="all", **MLP)
    for masks, message in [
        ({"fc7.weight": weight > 2}, "no parameter"),
        ({"fc1.weight": weight > 2}, r"mask of fc1\.weight is \[2,3\], expected \[3,4\]"),
        ({"head.weight": weight}, "other values than 0 and 1"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            import_network(given, LIKE, {}, masks=masks, **MLP)


def test_a_network_pruned_with_torch_s_own_tools():
    given = tensors()
    mask = np.array([[1, 0, 1], [0, 1, 1]], np.float32)
    given |= {"head.weight_orig": given["head.weight"], "head.weight_mask": mask}
    weight = given.pop("head.weight")
    imported = import_network(given, LIKE, {}, **MLP)
    assert imported.params["head"]["kernel"].tolist() == (weight * mask).T.tolist()
    assert imported.masks["head"]["kernel"].tolist() == (mask.T == 1).tolist()
    assert imported.masks["fc1"]["kernel"].all()
    assert imported.masks["fc1"]["kernel"].shape == (4, 3)


def test_torchvision_s_names_and_counters(make_network):
    _, params, masks, model_state = make_network("resnet8", (8, 8, 3))
    settings = {"architecture": "resnet8", "image_shape": (8, 8, 3)}
    exported = export_network(params, masks, model_state, layout="torch", **settings)
    renamed = {name.replace("shortcut.", "downsample.").replace("linear.", "fc."): t for name, t in exported.tensors.items()}
    renamed |= {"bn1.num_batches_tracked": np.int64(7), "layer1.0.bn1.num_batches_tracked": np.int64(7)}
    assert "layer2.0.downsample.0.weight" in renamed and "fc.bias" in renamed
    imported = import_network(renamed, params, model_state, **settings)
    same_bits(imported.model_state, model_state)
    assert imported.params["head"]["bias"].tobytes() == params["head"]["bias"].tobytes()


@pytest.mark.parametrize("structure", ["2:4", "1:2"])
def test_n_of_m_holds_in_the_exported_matrices(structure):
    """What PyTorch's semi-structured tensors ask for, on [out, in·h·w], a dense layer on a flattened map included."""
    kept, width = map(int, structure.split(":"))
    model = build("lenet5", num_classes=8)
    params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 12, 12, 4)))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), params)
    groups = groups_of(model, params, state, (12, 12, 4))
    masks = jax.jit(lambda params: group_masks(params, 1 - kept / width, groups, structure=structure))(params)
    exported = export_network(params, masks, state, architecture="lenet5", image_shape=(12, 12, 4))
    assert any(entry.arranged.kind == "flattened" for entry in exported.entries) and len(exported.masks) == 4
    for name in exported.masks:
        rows = exported.tensors[name].reshape(len(exported.tensors[name]), -1, width)
        assert (np.count_nonzero(rows, axis=-1) == kept).all(), name
