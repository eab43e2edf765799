"""σ-zero on linear networks, where the fewest features are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.sigma_zero import sigma_zero
from bap_jax.errors import SettingError
from bap_jax.mathematics import margin, per_example_norm
from bap_jax.types import Bounds

_random = np.random.RandomState(3)
WEIGHTS = jnp.asarray(_random.randn(12, 2), jnp.float32)
IMAGES = jnp.asarray(_random.rand(8, 12), jnp.float32)


def linear(images):
    return images @ WEIGHTS


LABELS = jnp.argmax(linear(IMAGES), axis=1)


@pytest.mark.parametrize("targeted", [False, True])
def test_it_needs_as_many_features_as_the_largest_gains_take(targeted):
    normal = (WEIGHTS[:, 0] - WEIGHTS[:, 1])[None] * jnp.where(LABELS == 0, 1, -1)[:, None]
    gains = -jnp.sort(-jnp.where(normal > 0, IMAGES, 1 - IMAGES) * jnp.abs(normal), axis=1)
    fewest = 1 + jnp.sum(jnp.cumsum(gains, axis=1) <= margin(linear(IMAGES), LABELS)[:, None], axis=1)
    labels = 1 - LABELS if targeted else LABELS
    result = jax.jit(lambda: sigma_zero(linear, None, IMAGES, labels, num_steps=300, targeted=targeted))()
    assert jnp.all(result.found) and len(set(fewest.tolist())) > 1
    np.testing.assert_array_equal(per_example_norm(result.images - IMAGES, "l0"), fewest)


def test_without_a_box_one_feature_is_enough():
    result = sigma_zero(linear, None, IMAGES, LABELS, bounds=Bounds(-jnp.inf, jnp.inf), num_steps=300)
    np.testing.assert_array_equal(per_example_norm(result.images - IMAGES, "l0"), 1)


def test_a_feature_without_room_stays_and_bounds_may_be_arrays():
    upper = jnp.ones(12).at[3].set(IMAGES[0, 3])
    lower = jnp.zeros(12).at[3].set(IMAGES[0, 3])
    result = sigma_zero(linear, None, IMAGES[:1], LABELS[:1], bounds=Bounds(lower, upper), num_steps=200)
    assert result.images[0, 3] == IMAGES[0, 3] and result.found[0] and jnp.all(jnp.isfinite(result.images))


@pytest.mark.parametrize("change", [
    {"sigma": 0.0}, {"initial_threshold": 1.5}, {"threshold_step": -0.1}, {"initial_step_size": 0.0},
])  # fmt: skip
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError) as error:
        sigma_zero(linear, None, IMAGES, LABELS, **change)
    assert error.value.name == next(iter(change))
