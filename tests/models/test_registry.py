"""Networks by name, factories, and what goes wrong with both."""

import jax
import jax.numpy as jnp
import pytest

from bap_jax.errors import SettingError
from bap_jax.models import MLP, NETWORKS, build, count_parameters, from_linen, registry
from bap_jax.types import Model

SMALL = {"vgg16": {"hidden": (8,)}, "resnet34": {"blocks": (1, 1, 1, 1)}, "resnet50": {"blocks": (1, 1, 1, 1)}}
SMALL |= {"wideresnet": {"depth": 10, "width": 1}, "dm_wideresnet": {"depth": 10, "width": 1}}


@pytest.mark.parametrize("name", NETWORKS)
def test_contract(name):
    """Every network: float32 logits for every row, taps, a state of fixed structure, the same parameters in both forms."""
    images = jnp.zeros((2, 16, 16, 3))
    trees = []
    for conv in ("fast", "plain"):
        model = build(name, num_classes=7, conv=conv, **SMALL.get(name, {}))
        params, state = jax.eval_shape(model.init, jax.random.key(0), images)
        outputs, after = jax.eval_shape(
            lambda p, s, model=model: model.apply(p, s, images, train=True, key=jax.random.key(1)), params, state
        )
        assert outputs.logits.shape == (2, 7) and outputs.logits.dtype == jnp.float32
        assert model.about.num_classes == 7 and (model.about.batch_norm_epsilon is not None) == ("batch_stats" in state)
        assert outputs.taps and all(tap.shape[0] == 2 for tap in outputs.taps.values())
        assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
        trees.append(jax.tree.map(lambda a: (a.shape, a.dtype), params))
    assert trees[0] == trees[1]


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("conv", ["fast", "plain"])
def test_training_gradient_lowers_for_accelerators(conv, platform):
    model = build("resnet8", num_classes=10, conv=conv)
    images = jnp.zeros((2, 8, 8, 3))
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(params, state, images):
        outputs, moved = model.apply(params, state, images, train=True)
        return jnp.sum(outputs.logits**2), moved

    traced = jax.jit(jax.value_and_grad(loss, argnums=(0, 2), has_aux=True)).trace(params, state, images)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 3 * 9 - (3 if conv == "fast" else 0)  # forward, to the inputs, to the weights
    # in the fast form the gradients to three channels, and to the two kernels of one point, are matrix products


@pytest.mark.parametrize(("backend", "barriers"), [("cpu", 1), ("gpu", 0), ("tpu", 0)])
def test_auto_is_fast_on_a_cpu_only(monkeypatch, backend, barriers):
    monkeypatch.setattr(registry.jax, "default_backend", lambda: backend)
    model = build("resnet8", num_classes=10)
    monkeypatch.undo()
    images = jnp.zeros((1, 8, 8, 3))
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    gradient = jax.make_jaxpr(jax.grad(lambda x, p, s: model.apply(p, s, x, train=False)[0].logits.sum()))
    assert ("optimization_barrier" in str(gradient(images, params, state))) == bool(barriers)


def test_unknown_name_lists_the_known():
    with pytest.raises(SettingError, match="mlp, lenet5, merkle_cnn, fitnet4, vgg16, vgg16_bn, vgg16_survey, resnet8, resnet18"):
        build("resnet9", num_classes=10)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("num_classes", {"num_classes": 1}),
        ("num_classes", {"num_classes": 10.0}),
        ("conv", {"num_classes": 10, "conv": "slow"}),
        ("depth", {"num_classes": 10, "depth": 3}),
        ("parent", {"num_classes": 10, "parent": None}),
    ],
)
def test_bad_settings_name_the_setting(name, arguments):
    with pytest.raises(SettingError, match=name):
        build("lenet5", **arguments)


def test_an_unknown_option_lists_the_known():
    with pytest.raises(SettingError, match="dtype, hidden"):
        build("mlp", num_classes=10, wdith=3)


def linen_factory(**settings):
    linen_factory.seen = settings
    return MLP(num_classes=settings["num_classes"], hidden=settings.get("hidden", (4,)))


def model_factory(*, num_classes, **_):
    return from_linen(MLP(num_classes=num_classes, hidden=()))


def number_factory(**_):
    return 3


@pytest.fixture
def here(monkeypatch):
    """This file as an importable module."""
    import sys
    import types

    module = types.ModuleType("networks_of_a_user")
    for thing in (linen_factory, model_factory, number_factory):
        setattr(module, thing.__name__, thing)
    module.a_number = 3
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_factories(here):
    for name, expected in (("linen_factory", 4 * 2 + 4 + 4 * 3 + 3), ("model_factory", 2 * 3 + 3)):
        model = build(f"{here}:{name}", num_classes=3, conv="plain", mean=[0.5], axis_name="data")
        assert isinstance(model, Model)
        params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2, 1, 1)))
        assert count_parameters(params) == expected
    assert linen_factory.seen == {"num_classes": 3, "conv": "plain", "axis_name": "data", "mean": (0.5,), "std": None}


@pytest.mark.parametrize("name", ["number_factory", "a_number", "absent"])
def test_bad_factories(here, name):
    with pytest.raises(SettingError, match="model"):
        build(f"{here}:{name}", num_classes=3)


@pytest.mark.parametrize("name", ["no_such_package.networks:make", ":make", "json:"])
def test_factories_that_cannot_be_imported(name):
    with pytest.raises(SettingError, match="model"):
        build(name, num_classes=3)
