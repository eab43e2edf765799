"""The single steps of fast adversarial training: on a linear network, where all gradients are one, each is a sum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import fgsm, n_fgsm, pgd, rs_fgsm
from bap_jax.errors import SettingError
from bap_jax.mathematics import per_example_norm
from bap_jax.types import Bounds

_random = np.random.RandomState(5)
B, D = 6, 8
WEIGHTS = jnp.asarray(_random.randn(D, 2), jnp.float32)
IMAGES = jnp.asarray(_random.rand(B, D), jnp.float32)
LABELS = jnp.zeros(B, int)
KEYS = jax.random.split(jax.random.key(0), B)
NORMAL = WEIGHTS[:, 1] - WEIGHTS[:, 0]  # away from class 0
STEP = {"linf": jnp.sign(NORMAL)[None], "l2": (NORMAL / jnp.linalg.norm(NORMAL))[None]}
NOWHERE_NEAR = Bounds(-9.0, 9.0)
BOTH = pytest.mark.parametrize("attack", [rs_fgsm, n_fgsm])


def linear(images):
    return images @ WEIGHTS.astype(images.dtype)


@pytest.mark.parametrize("norm", STEP)
def test_n_fgsm_is_noise_of_two_radii_and_a_step_of_one(norm):
    epsilon = jnp.linspace(0, 0.5, B)
    found = n_fgsm(linear, KEYS, IMAGES, LABELS, epsilon=epsilon, norm=norm, bounds=NOWHERE_NEAR)
    noise = found.images - epsilon[:, None] * STEP[norm] - IMAGES
    assert bool(jnp.all(per_example_norm(noise, norm) <= 2 * epsilon + 1e-5))
    assert float(jnp.max(per_example_norm(noise, norm) - epsilon)) > 0  # more noise than the ball holds
    np.testing.assert_array_equal(found.images[0], IMAGES[0])
    again = n_fgsm(linear, KEYS, IMAGES, LABELS, epsilon=epsilon, noise=1.0, step_size=0.5, norm=norm, bounds=NOWHERE_NEAR)
    less = again.images - 0.5 * epsilon[:, None] * STEP[norm] - IMAGES
    np.testing.assert_allclose(2 * less, noise, atol=1e-5)


def test_n_fgsm_leaves_the_ball_and_never_the_box():
    found = n_fgsm(linear, KEYS, IMAGES, LABELS, epsilon=0.2)
    moved = per_example_norm(found.images - IMAGES, "linf")
    assert bool(jnp.any(moved > 0.2)) and bool(jnp.all(moved <= 0.6 + 1e-6))
    assert float(found.images.min()) >= 0 and float(found.images.max()) <= 1


def test_rs_fgsm_is_start_step_and_projection():
    epsilon = 0.2
    start = rs_fgsm(linear, KEYS, IMAGES, LABELS, epsilon=epsilon, step_size=1e-9, bounds=NOWHERE_NEAR).images - IMAGES
    assert bool(jnp.any(jnp.abs(start) > 0.1)) and bool(jnp.all(jnp.abs(start) <= epsilon + 1e-6))
    found = rs_fgsm(linear, KEYS, IMAGES, LABELS, epsilon=epsilon, bounds=NOWHERE_NEAR).images - IMAGES
    expected = jnp.clip(start + 1.25 * epsilon * STEP["linf"], -epsilon, epsilon)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert bool(jnp.any(jnp.abs(found) < epsilon - 1e-3))  # 1.25 radii do not bring every start to the wall


@BOTH
def test_on_a_linear_network_a_long_enough_step_of_either_is_no_weaker_than_fgsm(attack):
    ours = attack(linear, KEYS, IMAGES, LABELS, epsilon=0.1, step_size=3.0, bounds=NOWHERE_NEAR)
    best = fgsm(linear, None, IMAGES, LABELS, epsilon=0.1, bounds=NOWHERE_NEAR)
    margin = (linear(ours.images) - linear(best.images)) @ jnp.array([-1.0, 1.0])
    assert bool(jnp.all(margin >= -1e-5)) and ours.loss.shape == best.loss.shape == (1, B)


@BOTH
def test_rows_are_alone_and_nothing_flows_through(attack):
    whole = jax.jit(functools.partial(attack, linear))
    result = whole(KEYS, IMAGES, LABELS, epsilon=jnp.float32(0.1))
    part = whole(KEYS[2:4], IMAGES[2:4], LABELS[2:4], epsilon=jnp.float32(0.1))
    np.testing.assert_allclose(part.images, result.images[2:4], atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(attack(linear, KEYS, x, LABELS, epsilon=0.1).images))(IMAGES)
    assert not jnp.any(gradient)
    half = attack(linear, KEYS, IMAGES.astype(jnp.bfloat16), LABELS, epsilon=0.1)
    assert half.images.dtype == jnp.bfloat16 and float(half.images.max()) <= 1


@BOTH
@pytest.mark.parametrize(
    "change", [{"epsilon": -1.0}, {"norm": "l0"}, {"epsilon": jnp.ones(3)}, {"step_size": 0.0}, {"keys": None}]
)
def test_what_cannot_be_is_refused(attack, change):
    given = {"keys": KEYS, "epsilon": 0.1, **change}
    with pytest.raises(SettingError):
        attack(linear, given.pop("keys"), IMAGES, LABELS, **given)


def test_one_step_of_pgd_with_that_step_is_rs_fgsm():
    ours = rs_fgsm(linear, KEYS, IMAGES, LABELS, epsilon=0.1)
    theirs = pgd(linear, KEYS, IMAGES, LABELS, epsilon=0.1, num_steps=1, step_size=0.125)
    np.testing.assert_array_equal(ours.images, theirs.images)
