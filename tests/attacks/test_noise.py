"""Noise lies in its ball, finds what a fair share of the ball holds, and keeps what its docstring promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.noise import noise
from bap_jax.errors import SettingError
from bap_jax.mathematics import margin_loss, misclassified, per_example_norm
from bap_jax.types import Bounds

attack = jax.jit(noise, static_argnames=("logits_fn", "norm", "bounds", "num_samples", "targeted"))
_random = np.random.RandomState(3)
W1, W2 = jnp.asarray(_random.randn(12, 16), jnp.float32), jnp.asarray(_random.randn(16, 4), jnp.float32)
IMAGES = jnp.asarray(_random.rand(6, 2, 2, 3), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 6)


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ W1) @ W2


LABELS = jnp.argmax(network(IMAGES), axis=1)


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.3), ("l2", 0.8), ("l1", 2.0), ("rms", 0.25), ("l0", 3.0)])
def test_points_lie_in_ball_and_box_and_the_best_is_kept(norm, epsilon):
    epsilons = epsilon * jnp.linspace(0.0, 2.0, 6)
    result = attack(network, KEYS, IMAGES, LABELS, epsilon=epsilons, norm=norm, num_samples=20)
    assert jnp.all(per_example_norm(result.images - IMAGES, norm) <= epsilons * (1 + 1e-5) + 1e-6)
    assert jnp.all((result.images >= 0) & (result.images <= 1))
    np.testing.assert_array_equal(result.images[0], IMAGES[0])  # ε = 0 is exact
    np.testing.assert_array_equal(result.found, misclassified(network(result.images), LABELS))
    np.testing.assert_array_equal(result.found, (result.loss > 0).any(axis=0))
    kept = margin_loss(network(result.images), LABELS)
    still = ~result.found
    np.testing.assert_allclose(kept[still], result.loss.max(axis=0)[still], atol=1e-5)
    assert jnp.any(result.found)
    padded = attack(network, KEYS, IMAGES.at[3:].set(0), LABELS.at[3:].set(0), epsilon=epsilons, norm=norm, num_samples=20)
    np.testing.assert_allclose(padded.images[:3], result.images[:3], atol=1e-6)


def test_the_share_of_adversarial_draws_is_that_of_the_ball():
    """A linear network with its plane at half the radius of an L∞ ball in one feature: a quarter of the ball lies beyond."""

    def half(images):
        return jnp.stack([0.5 - images[:, 0], images[:, 0] - 0.5], axis=1)

    images, labels, keys = jnp.full((8, 3), 0.4), jnp.zeros(8, int), jax.random.split(jax.random.key(4), 8)
    result = attack(half, keys, images, labels, epsilon=0.2, num_samples=2000)
    share = np.mean(np.asarray(result.loss) > 0)
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 16000)
    np.testing.assert_array_equal(attack(half, keys, images, labels, epsilon=0.099, num_samples=2000).found, False)


def test_more_samples_never_find_less():
    few = attack(network, KEYS, IMAGES, LABELS, epsilon=0.15, num_samples=3)
    many = attack(network, KEYS, IMAGES, LABELS, epsilon=0.15, num_samples=60)
    np.testing.assert_array_equal(few.loss, many.loss[:3])
    assert jnp.all(many.found | ~few.found) and jnp.sum(many.found) > jnp.sum(few.found)


def test_targeted_bounds_and_no_gradient():
    targets, bounds = (LABELS + 1) % 4, Bounds(-1.0, 1.0)
    settings = {"epsilon": 1.0, "num_samples": 200, "bounds": bounds, "targeted": True}
    result = attack(network, KEYS, IMAGES, targets, **settings)
    np.testing.assert_array_equal(result.found, jnp.argmax(network(result.images), axis=1) == targets)
    assert jnp.sum(result.found) >= 5 and jnp.any(result.images < 0)
    pull = jax.grad(lambda scale: jnp.sum(noise(lambda x: network(x * scale), KEYS, IMAGES, LABELS, epsilon=0.1).images))
    assert pull(2.0) == 0


@pytest.mark.parametrize("change, name", [
    ({"epsilon": -1.0}, "epsilon"), ({"norm": "l3"}, "norm"), ({"num_samples": 0}, "num_samples"),
    ({"norm": "l0", "bounds": Bounds(0.0, float("inf"))}, "bounds"),
])  # fmt: skip
def test_what_cannot_be_is_refused(change, name):
    with pytest.raises(SettingError) as error:
        noise(network, KEYS, IMAGES, LABELS, **{"epsilon": 0.1, **change})
    assert error.value.name == name
