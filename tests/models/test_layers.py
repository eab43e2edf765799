"""Input normalisation: exact, per channel, and ε stays in pixel units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.models import NETWORKS, build
from bap_jax.models.layers import normalize_pixels

MEAN, STD = (0.5, 0.25, 0.0), (0.25, 0.5, 2.0)


def test_normalises_each_channel():
    images = jax.random.uniform(jax.random.key(0), (2, 3, 4, 3))
    np.testing.assert_allclose(normalize_pixels(images, MEAN, STD), (np.asarray(images) - MEAN) / STD, rtol=1e-6)
    np.testing.assert_array_equal(normalize_pixels(images, None, None), images)


FIRST_TAP = {
    "mlp": "hidden1",
    "lenet5": "conv1",
    "merkle_cnn": "conv1",
    "fitnet4": "stage1",
    "vgg16": "block1",
    "vgg16_bn": "block1",
    "vgg16_survey": "block1",
    "wideresnet": "conv1",
    "dm_wideresnet": "conv1",
}  # of all others: the stem
SMALL = {"vgg16": {"hidden": (8,)}, "resnet34": {"blocks": (1, 1, 1, 1)}, "resnet50": {"blocks": (1, 1, 1, 1)}}
SMALL |= {"wideresnet": {"depth": 10, "width": 1}, "dm_wideresnet": {"depth": 10, "width": 1}}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_normalises_inside(name):
    """On normalised images the bare network computes what the normalising one computes on pixels: seen at its first layers."""
    options = SMALL.get(name, {})
    side = 12 if name == "merkle_cnn" else 4  # the smallest map that it takes
    images = jax.random.uniform(jax.random.key(1), (2, side, side, 3))
    inside = build(name, num_classes=3, mean=list(MEAN), std=list(STD), **options)
    bare = build(name, num_classes=3, **options)
    shapes, state = jax.eval_shape(inside.init, jax.random.key(0), images)
    params = jax.tree.map(lambda leaf: np.linspace(-0.1, 0.15, leaf.size, dtype=np.float32).reshape(leaf.shape), shapes)
    state = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), state)
    taps = [
        jax.jit(lambda p, x, model=model: model.apply(p, state, x, train=False)[0].taps[FIRST_TAP.get(name, "stem")])(params, x)
        for model, x in ((inside, images), (bare, normalize_pixels(images, MEAN, STD)), (bare, images))
    ]
    np.testing.assert_allclose(taps[0], taps[1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(taps[0], taps[2], rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "options"), [("mean", {"mean": (0.5,)}), ("std", {"std": (1.0, 1.0)}), ("std", {"std": (1.0, 0.0, 1.0)})]
)
def test_bad_normalisation(name, options):
    model = build("lenet5", num_classes=3, **options)
    with pytest.raises(SettingError, match=name):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("name", ["resnet8", "preactresnet18", "wideresnet", "vgg16_bn"])
def test_without_affine_batch_norm_has_statistics_and_no_parameters(name):
    options = {"depth": 10, "width": 1} if name == "wideresnet" else {}
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    models = [build(name, num_classes=10, affine=affine, **options) for affine in (True, False)]
    (with_them, state), (without, same) = [jax.eval_shape(model.init, jax.random.key(0), images) for model in models]
    places = [{jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)} for params in (with_them, without)]
    assert jax.tree.structure(state) == jax.tree.structure(same) and places[1] < places[0]
    assert all("bn" in place for place in places[0] - places[1]) and not any("bn" in place for place in places[1])
