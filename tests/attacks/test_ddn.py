"""DDN on linear networks, where the nearest adversarial point is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.ddn import ddn
from bap_jax.errors import SettingError
from bap_jax.mathematics import margin, per_example_norm
from bap_jax.types import Bounds

FREE = Bounds(-float("inf"), float("inf"))
_random = np.random.RandomState(3)
WEIGHTS = jnp.asarray(_random.randn(12, 2), jnp.float32)
IMAGES = jnp.asarray(_random.rand(8, 12), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 8)


def linear(images):
    return images @ WEIGHTS


LABELS = jnp.argmax(linear(IMAGES), axis=1)
DISTANCE = margin(linear(IMAGES), LABELS) / jnp.linalg.norm(WEIGHTS[:, 0] - WEIGHTS[:, 1])


@pytest.mark.parametrize("targeted", [False, True])
def test_within_a_percent_of_the_distance_to_the_plane(targeted):
    labels = 1 - LABELS if targeted else LABELS
    run = jax.jit(lambda start: ddn(linear, None, IMAGES, labels, bounds=FREE, initial_epsilon=start, targeted=targeted))
    for start in (1.0, jnp.linspace(0.1, 2.0, 8)):  # one number, and one per example
        result = run(jnp.broadcast_to(start, 8))
        ratio = per_example_norm(result.images - IMAGES, "l2") / DISTANCE
        assert jnp.all(result.found) and jnp.all((ratio >= 1 - 1e-5) & (ratio <= 1.01)), ratio


def test_the_norm_shrinks_by_gamma_where_adversarial_and_grows_where_not():
    """From a huge start every step is adversarial: the last but one of n points has norm ε·(1 − γ)^(n − 1)."""
    result = ddn(linear, None, IMAGES, LABELS, bounds=FREE, num_steps=4, gamma=0.25, initial_epsilon=1000.0)
    np.testing.assert_allclose(per_example_norm(result.images - IMAGES, "l2"), 1250 * 0.75**3, rtol=1e-5)


def test_a_row_without_gradient_wanders_if_it_has_a_key():
    cliff = lambda images: jnp.stack([jnp.zeros(8), jnp.where(jnp.abs(images - IMAGES).max(axis=1) > 0.3, 1.0, -1.0)], 1)  # noqa: E731
    labels, settings = jnp.zeros(8, int), {"bounds": FREE, "num_steps": 20}
    still = ddn(cliff, None, IMAGES, labels, **settings)
    assert not jnp.any(still.found)
    first, second = (ddn(cliff, keys, IMAGES, labels, **settings) for keys in (KEYS, KEYS[::-1]))
    assert jnp.all(first.found) and jnp.all(jnp.any(first.images != second.images, axis=1))


@pytest.mark.parametrize("change", [{"gamma": 0.0}, {"gamma": 1.0}, {"initial_epsilon": 0.0}, {"keys": KEYS[:2]}])
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError) as error:
        ddn(linear, images=IMAGES, labels=LABELS, **{"keys": KEYS, **change})
    assert error.value.name == next(iter(change))
