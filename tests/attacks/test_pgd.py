"""PGD against the analytic distances of a linear classifier, and what its docstring promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics import cross_entropy, dual_norm, margin, margin_loss, misclassified, per_example_norm
from bap_jax.types import Bounds

STATIC = ("logits_fn", "num_steps", "norm", "bounds", "random_start", "restarts", "targeted", "objective", "keep")
attack = jax.jit(pgd, static_argnames=STATIC)
WIDE = Bounds(-100.0, 100.0)
_random = np.random.RandomState(3)
WEIGHTS = jnp.asarray(_random.randn(12, 2), jnp.float32)
HIDDEN = jnp.asarray(_random.randn(12, 16), jnp.float32)
OUT = jnp.asarray(_random.randn(16, 4), jnp.float32)
IMAGES = jnp.asarray(_random.rand(6, 2, 2, 3), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 6)


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ HIDDEN) @ OUT


LINEAR_LABELS = jnp.argmax(linear(IMAGES), axis=1)
LABELS = jnp.argmax(network(IMAGES), axis=1)


def distance(norm):
    """|f| / ‖w‖_dual, the distance of every image to the boundary."""
    normal = (WEIGHTS[:, 0] - WEIGHTS[:, 1])[None]
    return margin(linear(IMAGES), LINEAR_LABELS) / per_example_norm(normal, dual_norm(norm))[0]


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_linear_network_falls_just_beyond_its_margin_and_not_before(norm, start):
    for factor in (1.01, 0.99):
        epsilon = distance(norm) * factor
        settings = {"norm": norm, "bounds": WIDE, "num_steps": 40, "random_start": start}
        result = attack(linear, KEYS, IMAGES, LINEAR_LABELS, epsilon=epsilon, step_size=epsilon / 4, **settings)
        np.testing.assert_array_equal(result.found, factor > 1)
        np.testing.assert_array_equal(misclassified(linear(result.images), LINEAR_LABELS), factor > 1)


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.1), ("l2", 0.5), ("l1", 1.0), ("rms", 0.1)])
def test_points_lie_in_ball_and_box_and_raise_the_loss(norm, epsilon):
    epsilons = epsilon * jnp.linspace(0.0, 1.5, 6)  # one per example
    result = attack(network, KEYS, IMAGES, LABELS, epsilon=epsilons, norm=norm, num_steps=8)
    assert result.loss.shape == (8, 6)
    assert jnp.all(per_example_norm(result.images - IMAGES, norm) <= epsilons * (1 + 1e-5) + 1e-6)
    assert jnp.all((result.images >= 0) & (result.images <= 1))
    rise = cross_entropy(network(result.images), LABELS) - cross_entropy(network(IMAGES), LABELS)
    assert jnp.all(rise[1:] > 0)
    np.testing.assert_array_equal(result.images[0], IMAGES[0])  # ε = 0 is exact


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_rows_do_not_influence_each_other(norm):
    """Half of the batch, other neighbours, padding: the same answer to the last bit but one."""
    settings = {"epsilon": 0.3, "norm": norm, "num_steps": 5, "restarts": 2}
    whole = attack(network, KEYS, IMAGES, LABELS, **settings)
    part = attack(network, KEYS[:2], IMAGES[:2], LABELS[:2], **settings)
    np.testing.assert_allclose(part.images, whole.images[:2], atol=1e-6)
    padded = attack(network, KEYS, IMAGES.at[2:].set(0), LABELS.at[2:].set(0), **settings)
    np.testing.assert_allclose(padded.images[:2], whole.images[:2], atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_zero_gradients_give_no_nan(norm):
    result = attack(lambda images: jnp.zeros((len(images), 3)), KEYS, IMAGES, LABELS * 0, epsilon=0.3, norm=norm, num_steps=3)
    assert jnp.all(jnp.isfinite(result.images)) and jnp.all(jnp.isfinite(result.loss))
    assert not jnp.any(result.found)


def test_targeted_reaches_the_target_and_untargeted_needs_no_particular_class():
    targets = (LABELS + 1) % 4
    result = attack(network, KEYS, IMAGES, targets, epsilon=1.0, num_steps=40, step_size=0.05, targeted=True)
    reached = jnp.argmax(network(result.images), axis=1) == targets
    np.testing.assert_array_equal(result.found, reached)
    assert jnp.sum(reached) >= 5
    assert jnp.all(result.loss[-1] < result.loss[0])


def test_every_restart_helps_or_does_nothing():
    settings = {"epsilon": 0.06, "num_steps": 2, "objective": margin_loss, "keep": "adversarial"}
    one = attack(network, KEYS, IMAGES, LABELS, restarts=1, **settings)
    many = attack(network, KEYS, IMAGES, LABELS, restarts=5, **settings)
    assert jnp.all(many.found | ~one.found)
    still = ~many.found
    gained = margin_loss(network(many.images), LABELS) - margin_loss(network(one.images), LABELS)
    assert jnp.all(gained[still] >= 0) and jnp.any(gained > 0)


def spiral(images):
    """A network of one feature whose decision flips in a thin shell only, so that a long attack walks through it."""
    value = images.reshape(len(images), -1)[:, :1]
    inside = jnp.where((value > 0.6) & (value < 0.7), 5.0, -5.0)
    return jnp.concatenate([jnp.zeros_like(value), value + inside], axis=1)


def test_keep_adversarial_returns_an_iterate_that_was_met():
    images, labels = jnp.full((3, 1), 0.5), jnp.zeros(3, int)
    settings = {"epsilon": 0.4, "num_steps": 8, "step_size": 0.05, "random_start": False}
    last = pgd(spiral, None, images, labels, **settings)
    kept = pgd(spiral, None, images, labels, keep="adversarial", **settings)
    np.testing.assert_allclose(last.images, 0.9, atol=1e-6)
    np.testing.assert_array_equal(last.found, True)
    np.testing.assert_array_equal(misclassified(spiral(kept.images), labels), True)
    assert jnp.all(kept.images >= 0.6)


def test_epsilon_and_step_may_be_traced_and_do_not_recompile():
    traces = []

    @jax.jit
    def attack(epsilon, step):
        traces.append(1)
        return pgd(network, KEYS, IMAGES, LABELS, epsilon=epsilon, step_size=step, num_steps=3).images

    by_numbers = pgd(network, KEYS, IMAGES, LABELS, epsilon=0.1, step_size=0.05, num_steps=3).images
    np.testing.assert_allclose(attack(0.1, 0.05), by_numbers, atol=1e-5)
    np.testing.assert_array_equal(attack(0.0, 0.0), IMAGES)
    np.testing.assert_allclose(attack(jnp.full(6, 0.1), jnp.full(6, 0.05)), by_numbers, atol=1e-5)
    assert len(traces) == 2  # once for numbers, once for one number per example


def test_training_pays_nothing_for_the_judgement_of_the_final_point():
    """Under jit the forward after the loop is dead code when only the images are used."""

    def matmuls(use):
        attack = lambda images: use(pgd(network, None, images, LABELS, epsilon=0.1, num_steps=3, random_start=False))  # noqa: E731
        text = jax.jit(attack).lower(IMAGES).compile().as_text()
        return text.count(" dot(") + text.count("custom-call(")

    assert matmuls(lambda result: result.images) == matmuls(lambda result: (result.images, result.found)) - 2


def test_no_gradient_flows_through_the_result():
    def loss(scale):
        result = pgd(lambda images: network(images) * scale, KEYS, IMAGES, LABELS, epsilon=0.1, num_steps=2)
        return jnp.sum(result.images) + jnp.sum(result.loss)

    assert jax.grad(loss)(2.0) == 0


def test_random_starts_differ_by_key_and_lie_in_the_ball():
    settings = {"epsilon": 0.2, "step_size": 0.0, "num_steps": 1}
    first = attack(network, KEYS, IMAGES, LABELS, **settings).images
    again = attack(network, KEYS, IMAGES, LABELS, **settings).images
    other = attack(network, KEYS[::-1], IMAGES, LABELS, **settings).images
    np.testing.assert_array_equal(first, again)
    assert jnp.all(jnp.abs(first - other).max(axis=(1, 2, 3)) > 0)
    assert jnp.abs(first - IMAGES).max() <= 0.2 + 1e-6


GOOD = {"epsilon": 0.1, "num_steps": 2}


@pytest.mark.parametrize("change, name", [
    ({"epsilon": -0.1}, "epsilon"),
    ({"epsilon": float("inf")}, "epsilon"),
    ({"step_size": -1.0}, "step_size"),
    ({"num_steps": 0}, "num_steps"),
    ({"num_steps": 2.5}, "num_steps"),
    ({"restarts": 0}, "restarts"),
    ({"restarts": 2, "random_start": False}, "restarts"),
    ({"norm": "l0"}, "norm"),
    ({"norm": "l3"}, "norm"),
    ({"keep": "best"}, "keep"),
    ({"l1_share": 0.0}, "l1_share"),
    ({"keys": None}, "keys"),
    ({"keys": KEYS[:3]}, "keys"),
    ({"keys": jnp.zeros((6, 2), jnp.uint32)}, "keys"),
    ({"labels": LABELS.astype(float)}, "labels"),
    ({"labels": LABELS[:3]}, "labels"),
    ({"images": (IMAGES * 255).astype(jnp.uint8)}, "images"),
    ({"epsilon": jnp.ones(5)}, "values"),
])  # fmt: skip
def test_what_cannot_be_is_refused(change, name):
    settings = {"keys": KEYS, "images": IMAGES, "labels": LABELS, **GOOD, **change}
    with pytest.raises(SettingError) as error:
        pgd(network, settings.pop("keys"), settings.pop("images"), settings.pop("labels"), **settings)
    assert error.value.name == name


def test_the_same_points_on_one_device_on_a_mesh_and_under_shard_map():
    images, labels, keys = (jnp.concatenate([leaf, leaf[:2]]) for leaf in (IMAGES, LABELS, KEYS))
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    rows = jax.sharding.PartitionSpec("batch")

    def run(keys, images, labels):
        result = pgd(network, keys, images, labels, epsilon=0.1, num_steps=3, keep="adversarial", restarts=2)
        return result.images, result.found

    expected = jax.jit(run)(keys, images, labels)
    spread = jax.device_put((keys, images, labels), jax.sharding.NamedSharding(mesh, rows))
    for found in (jax.jit(run)(*spread), jax.jit(jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows))(*spread)):
        np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
        np.testing.assert_array_equal(found[1], expected[1])
