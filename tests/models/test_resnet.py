"""Residual networks: counts, taps, BatchNorm, the whole batch's statistics over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from bap_jax.errors import SettingError
from bap_jax.models import ResNet, WideBlock, build, count_parameters, from_linen

RGB = (1, 32, 32, 3)


def shapes(name, images=RGB, **options):
    model = build(name, num_classes=10, **options)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images))


def small(**options):
    return from_linen(ResNet(num_classes=3, blocks=(1, 1), widths=(4, 8), **options))


def test_resnet18_has_the_common_count():
    params, state = shapes("resnet18")
    assert count_parameters(params) == 11_173_962
    assert count_parameters(state) == 2 * 4_800  # mean and variance of every channel of the 20 BatchNorms


def test_resnet8_count():
    # stem 432 + 32; stage 1: 2·2304 + 2·32; stage 2: 4608 + 9216 + 512 (shortcut) + 3·64;
    # stage 3: 18,432 + 36,864 + 2048 + 3·128; head 650
    params, _ = shapes("resnet8")
    assert count_parameters(params) == 464 + 4_672 + 14_528 + 57_728 + 650 == 78_042


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet34", {}, 21_282_122),
        ("resnet50", {}, 23_520_842),
        ("resnet18", {"stem": "imagenet"}, 11_689_512 - 990 * 513),  # torchvision's, of 10 classes in place of 1000
        ("resnet34", {"stem": "imagenet"}, 21_797_672 - 990 * 513),
        ("resnet50", {"stem": "imagenet"}, 25_557_032 - 990 * 2049),
        ("preactresnet18", {"final_norm": False}, 11_171_146),
    ],
)
def test_larger_networks_have_the_published_counts(name, options, expected):
    assert count_parameters(shapes(name, **options)[0]) == expected


@pytest.mark.parametrize(
    ("name", "option"), [("resnet50", "stem"), ("resnet50", "block"), ("preactresnet18", "shortcut"), ("wideresnet", "padding")]
)
def test_unknown_forms(name, option):
    with pytest.raises(SettingError, match=option):
        shapes(name, **{option: "other"})


def wide_count(depth, width, num_classes):
    """Weights of a wide residual network, layer by layer: no convolution has a bias, no shortcut a BatchNorm."""
    total, channels = 9 * 3 * 16, 16
    for features in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += 2 * channels + 9 * channels * features + 2 * features + 9 * features * features
            total += channels * features if channels != features else 0
            channels = features
    return total + 2 * channels + channels * num_classes + num_classes


@pytest.mark.parametrize(("depth", "width", "expected"), [(28, 10, 36_479_194), (34, 10, 46_160_474), (10, 1, None)])
def test_wide_counts(depth, width, expected):
    params, _ = shapes("wideresnet", depth=depth, width=width)
    assert count_parameters(params) == wide_count(depth, width, 10)
    assert expected is None or count_parameters(params) == expected  # as published for these two


def test_taps_are_those_of_pwoa():
    images = jnp.zeros(RGB)
    for name, first, blocks in (("resnet18", "stem", 8), ("wideresnet", "conv1", 12)):
        model = build(name, num_classes=10)
        params, state = jax.eval_shape(model.init, jax.random.key(0), images)
        outputs, _ = jax.eval_shape(lambda p, s, model=model: model.apply(p, s, images, train=False), params, state)
        assert set(outputs.taps) == {first, *(f"block{i}" for i in range(1, blocks + 1)), "pooled"}
        assert outputs.taps[f"block{blocks}"].shape[:3] == (1, 8, 8) if name == "wideresnet" else (1, 4, 4)


@pytest.fixture(scope="module")
def started():
    """Images, parameters and state for every ``small`` model."""
    images = jax.random.normal(jax.random.key(1), (8, 4, 4, 3))
    return images, *jax.jit(small().init)(jax.random.key(0), images)


def test_stride_two_pads_both_sides(started):
    """As torch does: with SAME the window would start one pixel later."""
    model = small()
    images, params, state = started
    outputs, _ = jax.jit(lambda p: model.apply(p, state, images, train=False))(params)
    block = params["block2"]
    before = outputs.taps["block1"]
    first = jax.lax.conv_general_dilated(
        before, block["conv1"]["kernel"], (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    hidden = jax.nn.relu(first / jnp.sqrt(1 + 1e-5))
    second = jax.lax.conv_general_dilated(
        hidden, block["conv2"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    shortcut = before[:, ::2, ::2] @ block["shortcut_conv"]["kernel"][0, 0]
    expected = jax.nn.relu(second / jnp.sqrt(1 + 1e-5) + shortcut / jnp.sqrt(1 + 1e-5))
    np.testing.assert_allclose(outputs.taps["block2"], expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_moves_a_tenth_while_training_and_not_in_evaluation(started):
    model = small()
    images, params, state = started
    _, unchanged = model.apply(params, state, images, train=False)
    assert unchanged is state
    _, moved = jax.jit(lambda p, s, x: model.apply(p, s, x, train=True))(params, state, images)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    stem = jax.lax.conv_general_dilated(
        images, params["stem_conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    statistics = moved["batch_stats"]["stem_bn"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-4)


def forward_and_gradient(model, state, mean):
    def run(params, images):
        def loss(params):
            outputs, moved = model.apply(params, state, images, train=True)
            return mean(jnp.mean(outputs.logits**2)), (outputs.logits, moved)

        return jax.grad(loss, has_aux=True)(params)

    return run


@pytest.mark.parametrize("way", ["shard_map", "pmap"])
def test_statistics_over_devices_are_those_of_the_whole_batch(way, started):
    images, params, state = started
    whole = small()
    _, (logits, moved) = jax.jit(forward_and_gradient(whole, state, lambda x: x))(params, images)

    shared = small(axis_name="data")
    init = jax.eval_shape(shared.init, jax.random.key(0), images)  # needs no mapped axis
    assert jax.tree.structure(init) == jax.tree.structure((params, state))
    run = forward_and_gradient(shared, state, lambda x: x)
    if way == "shard_map":
        mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        spec, replicated = PartitionSpec("data"), PartitionSpec()

        def local(params, images):
            _, (logits, moved) = run(params, images)
            return logits, moved

        mapped = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(replicated, spec), out_specs=(spec, replicated)))
        shared_logits, shared_moved = mapped(params, images)
    else:
        parts = images.reshape(4, 2, *images.shape[1:])
        _, (pieces, copies) = jax.pmap(run, "data", in_axes=(None, 0), devices=jax.devices()[:4])(params, parts)
        shared_logits, shared_moved = pieces.reshape(logits.shape), jax.tree.map(lambda leaf: leaf[3], copies)
    np.testing.assert_allclose(shared_logits, logits, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), shared_moved, moved)


def test_without_the_axis_the_statistics_differ(started):
    """So that the test above can fail."""
    images, params, state = started
    model = small()
    run = jax.jit(lambda x: model.apply(params, state, x, train=True)[1]["batch_stats"]["stem_bn"]["mean"])
    assert not np.allclose(run(images[:2]), run(images), rtol=1e-2)


def test_dropout_needs_and_follows_the_key():
    model = from_linen(WideBlock(features=3, dropout_rate=0.5))
    images = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
    params, state = jax.jit(model.init)(jax.random.key(0), images)
    run = jax.jit(lambda key: model.apply(params, state, images, train=True, key=key)[0].logits)
    first, again, other = run(jax.random.key(1)), run(jax.random.key(1)), run(jax.random.key(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("depth", [4, 27])
def test_impossible_depth(depth):
    with pytest.raises(SettingError, match="6n \\+ 4"):
        shapes("wideresnet", depth=depth)


def test_a_width_for_every_stage():
    with pytest.raises(SettingError, match="widths"):
        shapes("resnet8", widths=(16, 32))
