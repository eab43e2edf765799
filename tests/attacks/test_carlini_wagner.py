"""Carlini and Wagner's attack on linear networks, where the nearest adversarial point is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.carlini_wagner import carlini_wagner
from bap_jax.errors import SettingError
from bap_jax.mathematics import margin, per_example_norm
from bap_jax.types import Bounds

WIDE = Bounds(-3.0, 4.0)
_random = np.random.RandomState(3)
WEIGHTS = jnp.asarray(_random.randn(12, 2), jnp.float32)
IMAGES = jnp.asarray(_random.rand(8, 12), jnp.float32)


def linear(images):
    return images @ WEIGHTS


LABELS = jnp.argmax(linear(IMAGES), axis=1)
SLOPE = jnp.linalg.norm(WEIGHTS[:, 0] - WEIGHTS[:, 1])


@pytest.mark.parametrize("targeted", [False, True])
def test_within_a_percent_of_the_distance_to_the_plane_shifted_by_the_confidence(targeted):
    labels = 1 - LABELS if targeted else LABELS
    run = jax.jit(lambda confidence: carlini_wagner(
        linear, None, IMAGES, labels, bounds=WIDE, confidence=confidence, search_steps=12, step_size=2e-3, targeted=targeted,
    ))  # fmt: skip
    for confidence in (0.0, 1.0):
        result = run(confidence)
        ratio = per_example_norm(result.images - IMAGES, "l2") / ((margin(linear(IMAGES), LABELS) + confidence) / SLOPE)
        assert jnp.all(result.found) and jnp.all((ratio >= 1 - 1e-4) & (ratio <= 1.01)), ratio
        assert jnp.all(margin(linear(result.images), LABELS) <= -confidence + 1e-5)


def test_early_abort_costs_little_and_stops():
    settings = {"bounds": WIDE, "num_steps": 300, "search_steps": 6}
    full, short = (carlini_wagner(linear, None, IMAGES, LABELS, early_abort=early, **settings) for early in (False, True))
    sizes = [per_example_norm(result.images - IMAGES, "l2") for result in (full, short)]
    assert jnp.all(short.found) and jnp.median(sizes[1]) <= 1.05 * jnp.median(sizes[0])
    assert full.loss.shape == short.loss.shape == (300, 8)
    assert jnp.all(short.loss[-1] == short.loss[-2]) and jnp.any(full.loss[-1] != full.loss[-2])


def test_images_on_the_walls_of_the_box_are_attacked_too():
    corners = jnp.round(IMAGES)
    labels = jnp.argmax(linear(corners), axis=1)
    result = carlini_wagner(linear, None, corners, labels, num_steps=400)
    assert jnp.all(result.found) and jnp.all((result.images >= 0) & (result.images <= 1))


@pytest.mark.parametrize("change", [
    {"bounds": Bounds(0.0, float("inf"))}, {"search_steps": 0}, {"step_size": 0.0}, {"initial_constant": -1.0},
    {"confidence": -1.0},
])  # fmt: skip
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError) as error:
        carlini_wagner(linear, None, IMAGES, LABELS, **change)
    assert error.value.name == next(iter(change))
