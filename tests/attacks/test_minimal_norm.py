"""What every minimal-norm attack promises, whatever its method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.bisection import bisection
from bap_jax.attacks.brendel_bethge import brendel_bethge
from bap_jax.attacks.carlini_wagner import carlini_wagner
from bap_jax.attacks.ddn import ddn
from bap_jax.attacks.fmn import fmn
from bap_jax.attacks.ho_fmn import ho_fmn
from bap_jax.attacks.sigma_zero import sigma_zero
from bap_jax.errors import SettingError
from bap_jax.mathematics import misclassified, per_example_norm
from bap_jax.types import Bounds

_random = np.random.RandomState(5)
HIDDEN = jnp.asarray(_random.randn(12, 16), jnp.float32)
OUT = jnp.asarray(_random.randn(16, 4), jnp.float32)
IMAGES = jnp.asarray(_random.rand(8, 2, 2, 3), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 8)


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ HIDDEN) @ OUT


def corner(logits_fn, keys, images, labels, *, norm, bounds=Bounds(), **settings):
    """Bisection from the point of the box that is opposite to the image."""
    lower, upper = (jnp.asarray(side, images.dtype) for side in bounds)
    far = jnp.where(images - lower < upper - images, upper, lower)
    return bisection(logits_fn, keys, images, labels, adversarial=far, norm=norm, bounds=bounds, **settings)


LABELS = jnp.argmax(network(IMAGES), axis=1)
ATTACKS = {
    "ddn": ("l2", functools.partial(ddn, num_steps=40)),
    **{f"brendel_bethge-{norm}": (norm, functools.partial(brendel_bethge, norm=norm, num_steps=30)) for norm in ("l0", "l2")},
    **{f"fmn-{norm}": (norm, functools.partial(fmn, norm=norm, num_steps=40)) for norm in ("l0", "l1", "l2", "linf")},
    "sigma_zero": ("l0", functools.partial(sigma_zero, num_steps=60)),
    "carlini_wagner": ("l2", functools.partial(carlini_wagner, num_steps=60, search_steps=5)),
    "carlini_wagner-abort": ("l2", functools.partial(carlini_wagner, num_steps=60, search_steps=5, early_abort=True)),
    **{f"bisection-{norm}": (norm, functools.partial(corner, norm=norm)) for norm in ("l0", "l1", "l2", "linf")},
}
every = pytest.mark.parametrize("name", ATTACKS)
some = pytest.mark.parametrize(
    "name", ["ddn", "brendel_bethge-l0", "fmn-l0", "fmn-l1", "fmn-linf", "sigma_zero", "carlini_wagner"]
)
compiled = {
    name: jax.jit(attack, static_argnums=0, static_argnames=("bounds", "targeted")) for name, (_, attack) in ATTACKS.items()
}


@every
def test_the_result_is_adversarial_in_the_box_and_a_row_does_not_feel_its_neighbours(name):
    labels = LABELS.at[0].set((LABELS[0] + 1) % 4)  # the first row is misclassified already
    before = np.array(IMAGES)
    result = compiled[name](network, KEYS, IMAGES, labels)
    np.testing.assert_array_equal(misclassified(network(result.images), labels), result.found)
    assert name.startswith("bisection") or jnp.all(result.found)
    assert jnp.all((result.images >= 0) & (result.images <= 1))
    assert result.loss.ndim == 2 and result.loss.shape[1] == 8 and jnp.all(jnp.isfinite(result.loss))
    np.testing.assert_array_equal(result.images[0], IMAGES[0])
    np.testing.assert_array_equal(result.images[~result.found], IMAGES[~result.found])
    # other neighbours, and a network that answers NaN for them
    other = compiled[name](network, KEYS, IMAGES.at[4:].set(jnp.nan), labels.at[4:].set(0))
    np.testing.assert_allclose(other.images[:4], result.images[:4], atol=1e-5)
    np.testing.assert_array_equal(IMAGES, before)


@some
def test_targeted_reaches_the_wanted_class(name):
    targets = (LABELS + 1) % 4
    result = compiled[name](network, KEYS, IMAGES, targets, targeted=True)
    reached = jnp.argmax(network(result.images), axis=1) == targets
    np.testing.assert_array_equal(reached, result.found)
    assert jnp.sum(reached) >= 7


@pytest.mark.parametrize("name", ["fmn-l0", "fmn-linf", "sigma_zero", "carlini_wagner", "bisection-l1"])
def test_a_wider_box_is_the_same_problem(name):
    """Pixels in [-1, 3] instead of [0, 1], the step sizes that are in input units with them: distances grow by the width."""
    norm, attack = ATTACKS[name]
    scaled = lambda images: network((images + 1) / 4)  # noqa: E731
    settings = {}
    if name.startswith("fmn"):
        settings = {"initial_step_size": 4.0}
    if name.startswith("carlini"):
        settings = {"initial_constant": 16e-3}  # squared input units
    small = compiled[name](network, KEYS, IMAGES, LABELS)
    large = attack(scaled, KEYS, 4 * IMAGES - 1, LABELS, bounds=Bounds(-1.0, 3.0), **settings)
    np.testing.assert_array_equal(small.found, large.found)
    ratio = per_example_norm(large.images - (4 * IMAGES - 1), norm) / per_example_norm(small.images - IMAGES, norm)
    np.testing.assert_allclose(ratio[small.found], 1 if norm == "l0" else 4, rtol=2e-2)


@some
def test_zero_gradients_give_no_nan(name):
    result = compiled[name](lambda images: jnp.zeros((len(images), 3)) + 0 * images[:, 0, 0, :1], KEYS, IMAGES, 0 * LABELS)
    np.testing.assert_array_equal(result.images, IMAGES)
    assert not jnp.any(result.found) and jnp.all(jnp.isfinite(result.loss))


@pytest.mark.parametrize("name", ["ddn", "fmn-l1", "sigma_zero", "carlini_wagner-abort", "bisection-l0"])
def test_the_same_points_on_one_device_and_under_shard_map(name):
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    rows = jax.sharding.PartitionSpec("batch")

    def run(keys, images, labels):
        result = ATTACKS[name][1](network, keys, images, labels)
        return result.images, result.found

    expected = compiled[name](network, KEYS, IMAGES, LABELS)
    found = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows))(KEYS, IMAGES, LABELS)
    np.testing.assert_allclose(found[0], expected.images, atol=1e-5)
    np.testing.assert_array_equal(found[1], expected.found)


@pytest.mark.parametrize("name", ["ddn", "fmn-linf", "sigma_zero", "carlini_wagner"])
def test_one_forward_and_one_backward_pass_a_step(name):
    """The network is traced once in the loop, and once or twice outside, where only its answer is asked for."""
    calls = []

    def counted(images):
        calls.append(1)
        return network(images)

    jax.make_jaxpr(lambda images: ATTACKS[name][1](counted, None, images, LABELS))(IMAGES)
    assert len(calls) <= 2


def test_no_gradient_flows_through_a_result():
    def total(scale):
        result = fmn(lambda images: network(images) * scale, None, IMAGES, LABELS, num_steps=2)
        return jnp.sum(result.images) + jnp.sum(result.loss)

    assert jax.grad(total)(2.0) == 0


@pytest.mark.parametrize("change", [
    {"labels": LABELS.astype(float)}, {"labels": LABELS[:3]}, {"images": (IMAGES * 255).astype(jnp.uint8)}, {"num_steps": 0},
    {"num_steps": 2.5},
])  # fmt: skip
@pytest.mark.parametrize("attack", [
    ddn, fmn, ho_fmn, sigma_zero, carlini_wagner, functools.partial(bisection, adversarial=IMAGES),
])  # fmt: skip
def test_what_cannot_be_is_refused(attack, change):
    settings = {"images": IMAGES, "labels": LABELS, **change}
    with pytest.raises(SettingError) as error:
        attack(network, KEYS, settings.pop("images"), settings.pop("labels"), **settings)
    assert error.value.name == next(iter(change))
