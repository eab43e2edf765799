"""A pruned network and what compaction leaves of it give the same logits, and what is left can be built and trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sliced_networks import along, as_model, convolve, narrow, parameters, random_tree, signed, zeroed

from bap_jax.errors import SettingError
from bap_jax.mathematics.group_masks import group_masks
from bap_jax.mathematics.masks import apply_masks
from bap_jax.models import build, vgg
from bap_jax.structure import compact, groups_of
from bap_jax.types import Model, Network, Outputs

NETWORKS = {
    "resnet8": ({"widths": (4, 6, 8)}, (8, 8, 3)),
    "vgg16": ({"widths": narrow(vgg.LAYERS, 7) | {"fc1": 9}, "hidden": (9,), "batch_norm": True}, (4, 4, 3)),
    "wideresnet": ({"depth": 10, "width": 1}, (8, 8, 3)),
    "lenet5": ({"widths": {"conv1": 4, "conv2": 6, "fc1": 8}}, (8, 8, 1)),
}


def pruned(name, scope):
    """A network with half of its structures pruned."""
    options, shape = NETWORKS[name]
    model = build(name, num_classes=3, **options)
    images = np.random.default_rng(1).uniform(size=(3, *shape)).astype(np.float32)
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), images)
    params, model_state = signed(params), random_tree(model_state)
    groups = groups_of(model, params, model_state, shape)
    if scope == "layer":
        masks = jax.jit(lambda params: group_masks(params, 0.5, groups))(params)
    else:
        random = np.random.default_rng(2)
        cut = [random.permutation(family.size) < family.size // 2 for family in groups.families]
        kept = zeroed(jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params), "params", groups.families, cut)
        masks = jax.tree.map(jnp.asarray, kept)
    return model, Network(apply_masks(params, masks), masks, model_state), images


@pytest.mark.parametrize(
    ("name", "scope"), [("resnet8", "coupled"), ("vgg16", "layer"), ("wideresnet", "coupled"), ("lenet5", "layer")]
)
def test_a_compact_network_is_built_with_its_widths_and_gives_the_same_logits(name, scope):
    model, network, images = pruned(name, scope)
    small, widths, report = compact(model, network, images.shape[1:])
    options = NETWORKS[name][0] | {"widths": widths}
    rebuilt = build(name, num_classes=3, **options)
    shapes = jax.eval_shape(rebuilt.init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, (small.params, small.model_state)) == jax.tree.map(jnp.shape, shapes)

    @jax.jit
    def both(whole, small):
        return [
            each.apply(network.params, network.model_state, images, train=False)[0].logits
            for each, network in ((model, whole), (rebuilt, small))
        ]

    whole, logits = both(network, small)
    np.testing.assert_allclose(logits, whole, atol=1e-4 * np.abs(whole).max())
    for family in report.families:
        assert family.after == round(family.before / 2)
    assert report.parameters_after == sum(leaf.size for leaf in jax.tree.leaves(small.params)) < report.parameters_before
    assert report.compression > 1.5
    zeros = sum(int((leaf == 0).sum()) for leaf in jax.tree.leaves(small.params))
    assert report.nonzero_after == report.parameters_after - zeros <= report.nonzero_before
    again, _, report = compact(rebuilt, small, images.shape[1:])
    assert report.compression == 1 and all(family.before == family.after for family in report.families)
    jax.tree.map(np.testing.assert_array_equal, again, small)


def test_a_summed_channel_stays_while_one_of_its_makers_is_left():
    model, network, images = pruned("resnet8", "layer")
    _, _, report = compact(model, network, images.shape[1:])
    sizes = {family.name: (family.before, family.after) for family in report.families}
    assert sizes["block1/conv1/kernel"] == (4, 2)  # between a block's convolutions every filter is by itself
    made = [network.masks["stem_bn"]["bias"], network.masks["block1"]["bn2"]["bias"]]
    assert sizes["stem_conv/kernel"] == (4, int(jnp.sum(made[0] | made[1])))
    assert report.nonzero_after < report.parameters_after


def test_what_is_constant_but_not_zero_stays_and_what_nobody_reads_goes():
    def network(params, x):
        return jax.nn.sigmoid(x @ params["a"]) @ params["b"] + jax.nn.relu(x @ params["c"]) @ params["d"]

    params = parameters({"a": (2, 4), "b": (4, 3), "c": (2, 4), "d": (4, 3)})
    params["a"] = params["a"].at[:, 0].set(0)  # sigmoid(0) is not 0
    params["b"] = params["b"].at[2].set(0)  # read with zero weights
    params["c"] = params["c"].at[:, 1].set(0)  # relu(0) is 0
    given = Network(params, jax.tree.map(lambda leaf: jnp.bool_(True), params), {})
    model = as_model(network)
    small, widths, report = compact(model, given, (2,))
    assert widths is None
    assert [out.tolist() for out in report.cut] == [[False, False, True, False], [False, True, False, False]]
    x = np.ones((1, 2), np.float32)
    np.testing.assert_allclose(network(small.params, x), network(params, x), rtol=1e-5)


def test_a_layer_that_has_lost_all_keeps_one_channel():
    def network(params, x):
        return jax.nn.relu(x @ params["a"]) @ params["b"]

    params = parameters({"a": (2, 4), "b": (4, 3)})
    masks = {"a": jnp.zeros((2, 4), bool), "b": jnp.bool_(True)}
    small, _, report = compact(as_model(network), Network(params, masks, {}), (2,))
    assert small.params["a"].shape == (2, 1) and not small.params["a"].any() and small.masks["a"].shape == (2, 1)
    assert report.nonzero_after == 3
    with pytest.raises(SettingError, match="params/b"):
        compact(as_model(network), Network(params | {"b": params["b"].at[0].set(jnp.nan)}, masks, {}), (2,))


def head(params, x):
    return jnp.mean(jax.nn.relu(x), (1, 2)) @ params["head"]


def reading(padding, size, behind):
    """A network whose second layer reads six channels."""

    def network(params, x):
        x = jax.nn.relu(convolve(x, params["one"]) + along(params["bias"], x))
        kernel = params["two"][:size, :size]
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return head(params, behind(params, x))

    return network


@pytest.mark.parametrize(
    ("padding", "size", "behind", "folded"),
    [
        ("VALID", 3, lambda params, x: x + along(params["next"], x), True),
        ("SAME", 1, lambda params, x: x + along(params["next"], x), True),
        ("VALID", 3, lambda params, x: (x - along(params["next"], x)) * along(params["scale"], x), True),
        ("SAME", 3, lambda params, x: x + along(params["next"], x), False),  # less of it at the border
        ("VALID", 3, lambda params, x: x, False),  # nowhere to put it
        ("VALID", 3, lambda params, x: x + along(params["next"], x) + along(params["next"], x), False),  # twice too much
        ("VALID", 3, lambda params, x: jax.nn.relu(x) + along(params["next"], x), False),
    ],
)
def test_a_constant_goes_into_the_next_bias_where_nothing_is_padded(padding, size, behind, folded):
    shapes = {"one": (3, 3, 2, 6), "bias": (6,), "two": (size, size, 6, 4), "next": (4,), "scale": (4,), "head": (4, 3)}
    params = parameters(shapes)
    params["one"] = params["one"].at[..., :2].set(0)  # two filters that are zero, their biases
    params["bias"] = params["bias"].at[:2].set(jnp.array([0.7, 1.3]))
    masks = {name: jnp.ones(leaf.shape, bool) for name, leaf in params.items()}
    masks["next"] = masks["next"].at[0].set(False)
    model, images = as_model(reading(padding, size, behind)), np.random.default_rng(1).normal(size=(3, 5, 5, 2))
    small, _, report = compact(model, Network(params, masks, {}), (5, 5, 2))
    assert (report.folded, report.cut[0].tolist()) == ((2, [True] * 2 + [False] * 4) if folded else (0, [False] * 6))
    assert small.params["two"].shape[2] == 6 - report.folded
    whole, cut = (model.apply(one, {}, images, train=False)[0].logits for one in (apply_masks(params, masks), small.params))
    np.testing.assert_allclose(cut, whole, atol=1e-5 * np.abs(whole).max())
    assert bool(small.masks["next"][0]) == folded  # a pruned bias that holds a constant counts as kept


def test_a_constant_goes_through_a_dense_layer_into_a_running_mean():
    def apply(params, model_state, images, *, train, key=None):
        x = jax.nn.sigmoid(images @ params["a"])
        x = jax.nn.relu((x @ params["b"] - model_state["mean"][None]) * params["scale"][None])
        return Outputs(x @ params["c"] + params["bias"][None], {}), model_state

    params = parameters({"a": (2, 4), "b": (4, 3), "scale": (3,), "c": (3, 2), "bias": (2,)})
    params["a"] = params["a"].at[:, 1].set(0)  # one half, whatever the image
    params["b"] = params["b"].at[:, 2].set(0)  # and then what its mean and its scale make of it
    params["scale"] = params["scale"].at[2].set(-1.5)
    model_state = {"mean": jnp.array([0.1, 0.2, 0.3])}
    masks = jax.tree.map(lambda leaf: jnp.bool_(True), params)
    model, images = Model(None, apply), np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    small, _, report = compact(model, Network(params, masks, model_state), (2,))
    assert report.folded == 2 and small.params["b"].shape == (3, 2) and small.model_state["mean"].shape == (2,)
    whole, cut = (
        model.apply(*one, images, train=False)[0].logits for one in ((params, model_state), (small.params, small.model_state))
    )
    np.testing.assert_allclose(cut, whole, atol=1e-5)
