"""Attacks limited to a region: against the analytic distances of a linear classifier whose other features are frozen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import apgd, apgd_targeted, pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics import dual_norm, margin, margin_loss, per_example_norm
from bap_jax.types import Bounds

WIDE = Bounds(-100.0, 100.0)
_random = np.random.RandomState(3)
WEIGHTS = jnp.asarray(_random.randn(12, 2), jnp.float32)
IMAGES = jnp.asarray(_random.rand(5, 2, 2, 3), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 5)
REGION = jnp.asarray(_random.rand(5, 2, 2, 1) < 0.5).at[:, 0, 0].set(True)  # whole pixels, others in every image
ATTACKS = {"pgd": functools.partial(pgd, keep="adversarial", l1_share=0.05, objective=margin_loss), "apgd": apgd}


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS


LABELS = jnp.argmax(linear(IMAGES), axis=1)


def distance(region, norm):
    normal = jnp.where(region, (WEIGHTS[:, 0] - WEIGHTS[:, 1]).reshape(1, 2, 2, 3), 0)
    return margin(linear(IMAGES), LABELS) / per_example_norm(normal, dual_norm(norm))


@pytest.mark.parametrize(("name", "norm"), [("pgd", "linf"), ("pgd", "l2"), ("pgd", "l1"), ("apgd", "linf"), ("apgd", "l2")])
def test_a_linear_network_falls_just_beyond_the_margin_that_the_region_leaves(name, norm):
    @jax.jit
    def attack(region, epsilon):
        attack.traces += 1
        settings = {"norm": norm, "bounds": WIDE, "num_steps": 60, "region": region}
        settings |= {"step_size": epsilon / 4} if name == "pgd" else {}
        return ATTACKS[name](linear, KEYS, IMAGES, LABELS, epsilon=epsilon, **settings)

    attack.traces = 0
    for region in (REGION, jnp.flip(REGION, 0) | True, ~REGION | (jnp.arange(2)[None, :, None, None] == 1)):
        for factor in (1.02, 0.98):
            epsilon = distance(region, norm) * factor
            result = attack(region, epsilon)
            np.testing.assert_array_equal(result.found, factor > 1)
            outside = jnp.broadcast_to(~region, IMAGES.shape)
            np.testing.assert_array_equal(jnp.where(outside, result.images, 0), jnp.where(outside, IMAGES, 0))  # to the bit
            assert jnp.all(per_example_norm(result.images - IMAGES, norm) <= epsilon * (1 + 1e-5))
    assert attack.traces == 1  # one program for all regions


def test_sparse_steps_and_targets_stay_inside_as_well():
    def four(images):
        return images.reshape(len(images), -1) @ jnp.asarray(np.random.RandomState(1).randn(12, 4), jnp.float32)

    labels = jnp.argmax(four(IMAGES), axis=1)
    for attack, settings in ((apgd, {"norm": "l1", "epsilon": 4.0}), (apgd_targeted, {"epsilon": 0.5, "ranking": "malt"})):
        result = attack(four, KEYS, IMAGES, labels, num_steps=5, region=REGION, **settings)
        outside = jnp.broadcast_to(~REGION, IMAGES.shape)
        np.testing.assert_array_equal(jnp.where(outside, result.images, 0), jnp.where(outside, IMAGES, 0))
        assert jnp.any(result.images != IMAGES) and jnp.all((result.images >= 0) & (result.images <= 1))


def test_no_region_at_all_leaves_the_images():
    result = pgd(linear, KEYS, IMAGES, LABELS, epsilon=0.5, num_steps=3, region=jnp.zeros((1, 1, 1, 1), bool))
    np.testing.assert_array_equal(result.images, IMAGES)
    assert not result.found.any()


@pytest.mark.parametrize("region", [jnp.ones((5, 2, 2)), jnp.ones((4, 2, 2, 1), bool), jnp.ones((2, 2, 3), bool), 1])
def test_what_is_no_region(region):
    for attack in (pgd, apgd):
        with pytest.raises(SettingError, match="region"):
            attack(linear, KEYS, IMAGES, LABELS, epsilon=0.5, num_steps=3, region=region)
