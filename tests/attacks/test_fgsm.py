"""FGSM is its closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import fgsm, pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics import per_example_norm
from bap_jax.types import Bounds

_random = np.random.RandomState(5)
WEIGHTS = jnp.asarray(_random.randn(8, 2), jnp.float32)
IMAGES = jnp.asarray(_random.rand(5, 8), jnp.float32)
NORMAL = WEIGHTS[:, 1] - WEIGHTS[:, 0]  # away from class 0


def linear(images):
    return images @ WEIGHTS


@pytest.mark.parametrize("norm, direction", [
    ("linf", jnp.sign(NORMAL)),
    ("l2", NORMAL / jnp.linalg.norm(NORMAL)),
    ("l1", jnp.sign(NORMAL) * (jnp.abs(NORMAL) == jnp.abs(NORMAL).max())),
])  # fmt: skip
def test_on_a_linear_network_the_step_is_the_best_one(norm, direction):
    labels, epsilons = jnp.zeros(5, int), jnp.linspace(0, 0.4, 5)
    result = fgsm(linear, None, IMAGES, labels, epsilon=epsilons, norm=norm)
    expected = jnp.clip(IMAGES + epsilons[:, None] * direction[None], 0, 1)
    np.testing.assert_allclose(result.images, expected, atol=1e-6)
    np.testing.assert_array_equal(result.images[0], IMAGES[0])
    assert result.loss.shape == (1, 5)
    towards = fgsm(linear, None, IMAGES, labels + 1, epsilon=epsilons, norm=norm, targeted=True)
    np.testing.assert_allclose(towards.images, expected, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "rms"])
def test_it_is_pgd_of_one_full_step(norm):
    labels = jnp.argmax(linear(IMAGES), axis=1)
    one = pgd(
        linear, None, IMAGES, labels, epsilon=0.2, step_size=0.2, num_steps=1, norm=norm, random_start=False, bounds=Bounds(-9, 9)
    )
    fast = fgsm(linear, None, IMAGES, labels, epsilon=0.2, norm=norm, bounds=Bounds(-9, 9))
    np.testing.assert_allclose(fast.images, one.images, atol=1e-6)
    np.testing.assert_array_equal(fast.found, one.found)
    np.testing.assert_allclose(per_example_norm(fast.images - IMAGES, norm), 0.2, rtol=1e-4)


@pytest.mark.parametrize("change", [{"epsilon": -1.0}, {"norm": "l0"}, {"epsilon": jnp.ones(3)}])
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError):
        fgsm(linear, None, IMAGES, jnp.zeros(5, int), **{"epsilon": 0.1, **change})
