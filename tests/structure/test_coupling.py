"""Groups by brute force: cutting one gives what zeroing it gives, and no proper part of it can be cut."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sliced_networks import IMAGES, NETWORKS, as_model, narrow, parameters, random_tree, signed, without, zeroed

from bap_jax.errors import SettingError
from bap_jax.models import build, fitnet, from_linen, from_nnx, vgg
from bap_jax.structure import groups_of, slice_out, sliced_apply


@pytest.mark.parametrize("name", NETWORKS)
def test_cutting_a_group_is_zeroing_it_and_no_proper_part_can_be_cut(name):
    function, shapes, expected = NETWORKS[name]
    params = parameters(shapes)
    families = groups_of(as_model(function), params, {}, IMAGES.shape[1:]).families
    assert [(family.size, len(family.slices)) for family in families] == expected
    for family in families:
        for group in range(family.size):
            cut = [np.arange(other.size) == (group if other is family else -1) for other in families]
            entries = {(piece.path, piece.axis): piece.indices[group] for piece in family.slices}
            whole = function(zeroed(params, "params", families, cut), IMAGES)
            np.testing.assert_allclose(function(without(params, entries), IMAGES), whole, rtol=1e-4, atol=1e-5)
        for size in range(1, len(entries)):  # of the last group, every proper part
            for part in itertools.combinations(entries, size):
                partly = without(params, {axis: entries[axis] for axis in part})
                with pytest.raises((TypeError, ValueError)):
                    jax.eval_shape(function, partly, IMAGES)


@pytest.mark.parametrize("name", ["flattened", "grouped", "depthwise"])
def test_no_proper_part_of_an_axis_entries_can_be_cut(name):
    """A flattened channel is one entry for each place, a grouped one for each group: none can go without the others."""
    function, shapes, _ = NETWORKS[name]
    params = parameters(shapes)
    family = groups_of(as_model(function), params, {}, IMAGES.shape[1:]).families[0]
    for piece in (piece for piece in family.slices if piece.indices.shape[1] > 1):
        entries = {(each.path, each.axis): each.indices[0] for each in family.slices}
        for place in range(piece.indices.shape[1]):
            fewer = entries | {(piece.path, piece.axis): np.delete(piece.indices[0], place)}
            with pytest.raises((TypeError, ValueError)):
                jax.eval_shape(function, without(params, fewer), IMAGES)


OURS = {
    "mlp": ({"hidden": (6, 5)}, (4, 4, 1), 2),
    "lenet5": ({"widths": {"conv1": 5, "conv2": 6, "fc1": 7}}, (8, 8, 1), 3),
    "fitnet4": ({"widths": narrow(fitnet.LAYERS)}, (4, 4, 3), 16),
    "vgg16": ({"batch_norm": True, "hidden": (7,), "widths": narrow(vgg.LAYERS)}, (4, 4, 3), 14),
    "resnet8": ({"widths": (4, 5, 6)}, (8, 8, 3), 6),
    "resnet18": ({"widths": (3, 4, 5, 6)}, (8, 8, 3), 12),
    "wideresnet": ({"depth": 10, "width": 1}, (8, 8, 3), 6),
}


@pytest.mark.parametrize("name", OURS)
def test_of_our_networks_half_the_groups_cut_are_half_the_groups_zeroed(name):
    options, shape, num_families = OURS[name]
    model = build(name, num_classes=3, conv="fast", mean=(0.4,) * shape[-1], std=(0.3,) * shape[-1], **options)
    check_halves(model, shape, num_families)


def check_halves(model, shape, num_families):
    images = np.random.default_rng(1).uniform(size=(2, *shape)).astype(np.float32)
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), images)
    params, model_state = signed(params), random_tree(model_state)
    families = groups_of(model, params, model_state, shape).families
    assert len(families) == num_families
    random = np.random.default_rng(3)
    cut = [random.permutation(family.size) < family.size // 2 for family in families]
    given = [zeroed(params, "params", families, cut), zeroed(model_state, "model_state", families, cut)]
    small = [slice_out(params, "params", families, cut), slice_out(model_state, "model_state", families, cut)]
    assert sum(leaf.size for leaf in jax.tree.leaves(small)) < 0.7 * sum(leaf.size for leaf in jax.tree.leaves(given))
    apply = sliced_apply(model, params, model_state, cut)

    @jax.jit
    def both(given, small):
        return [each(*network, images, train=False)[0].logits for each, network in ((model.apply, given), (apply, small))]

    whole, logits = both(given, small)
    np.testing.assert_allclose(logits, whole, atol=1e-4 * np.abs(whole).max())


class Dense(nn.Module):
    """A user's own: dense connectivity, channels padded with zeros, a gate per channel, other activations."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.swish(nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x)))
        x = jnp.concatenate([x, nn.leaky_relu(nn.Conv(3, (3, 3))(x))], -1)
        gate = nn.sigmoid(nn.Dense(7)(nn.relu(nn.Dense(5)(jnp.mean(x, (1, 2))))))
        x = x * gate[:, None, None, :]
        wider = nn.Conv(9, (1, 1))(x) + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 2)))
        x = nn.avg_pool(nn.remat(nn.Conv)(6, (3, 3), feature_group_count=3)(wider), (2, 2), (2, 2))
        return nn.Dense(3)(nn.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.depthwise = nnx.Conv(6, 6, (3, 3), feature_group_count=6, rngs=rngs)
        self.mix = nnx.Conv(6, 4, (1, 1), rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        x = self.mix(nnx.relu(self.depthwise(nnx.relu(self.norm(self.conv(x))))))
        return self.head(self.dropout(jnp.transpose(x, (0, 3, 1, 2)).reshape(len(x), -1)))


def test_a_users_linen_network():
    check_halves(from_linen(Dense()), (4, 4, 3), 4)


def test_a_users_nnx_network():
    check_halves(from_nnx(lambda rngs: Nnx(rngs)), (4, 4, 3), 2)


def test_what_is_normalised_over_channels_stays_and_the_rest_may_go():
    def network(params, x):
        x = jax.nn.softmax(x @ params["a"])
        return jax.nn.relu(x @ params["b"]) @ params["c"]

    shapes = {"a": (2, 4), "b": (4, 5), "c": (5, 3)}
    groups = groups_of(as_model(network), parameters(shapes), {}, (2,))
    assert [(family.name, family.size) for family in groups.families] == [("b", 5)]
    assert [(layer.path, layer.free_inputs, layer.free_outputs) for layer in groups.layers] == [
        ("a", False, False),
        ("b", False, True),
        ("c", True, False),
    ]


def _scanned(params, x):
    return jax.lax.scan(lambda x, _: (jax.nn.relu(x @ params["b"]), None), x @ params["a"], None, 2)[0] @ params["c"]


def _sorted(params, x):
    return jnp.sort(x @ params["a"], -1) @ params["b"] @ params["c"]


def _gathered(params, x):
    return (x @ params["a"])[:, jnp.array([2, 0, 1, 3])] @ params["b"] @ params["c"]


@pytest.mark.parametrize(("network", "operation"), [(_scanned, "scan"), (_sorted, "sort"), (_gathered, "gather")])
def test_an_operation_that_channels_cannot_be_followed_through_is_refused_by_its_name(network, operation):
    params = parameters({"a": (2, 4), "b": (4, 4), "c": (4, 3)})
    with pytest.raises(SettingError, match=rf"model = '{operation}': .* axis . of [ab]"):
        groups_of(as_model(network), params, {}, (2,))


def test_a_layer_has_what_follows_its_outputs_alone():
    model = build("resnet8", num_classes=3, widths=(4, 4, 6))
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    layers = {layer.path: layer for layer in groups_of(model, params, model_state, (8, 8, 3)).layers}
    assert layers["block1/conv2/kernel"].scales == ("block1/bn2/scale",)
    assert layers["block2/shortcut_conv/kernel"].shifts == ("block2/shortcut_bn/bias",)
    assert not layers["head/kernel"].free_outputs and not layers["stem_conv/kernel"].free_inputs
    with pytest.raises(SettingError, match="image_shape"):
        groups_of(model, params, model_state, (8, 8, 0))
