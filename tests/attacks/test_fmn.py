"""FMN on linear networks, where the nearest adversarial point is known, and its hooks."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bap_jax.attacks.fmn import fmn
from bap_jax.errors import SettingError
from bap_jax.mathematics import cross_entropy, dlr, dual_norm, margin, per_example_norm
from bap_jax.types import Bounds

FREE = Bounds(-float("inf"), float("inf"))
_random = np.random.RandomState(3)
WEIGHTS = jnp.asarray(_random.randn(12, 2), jnp.float32)
IMAGES = jnp.asarray(_random.rand(8, 12), jnp.float32)


def linear(images):
    return images @ WEIGHTS


NORMAL = WEIGHTS[:, 0] - WEIGHTS[:, 1]
LABELS = jnp.argmax(linear(IMAGES), axis=1)


def test_l0_needs_hardly_more_features_than_the_largest_gains_take():
    lead = margin(linear(IMAGES), LABELS)
    sign = jnp.where(LABELS == 0, 1, -1)[:, None]
    room = jnp.where(sign * NORMAL[None] > 0, IMAGES, 1 - IMAGES)  # how far each feature may move against the label
    gains = -jnp.sort(-room * jnp.abs(NORMAL)[None], axis=1)
    fewest = 1 + jnp.sum(jnp.cumsum(gains, axis=1) <= lead[:, None], axis=1)
    result = fmn(linear, None, IMAGES, LABELS, norm="l0")
    assert jnp.all(result.found) and len(set(fewest.tolist())) > 1
    more = per_example_norm(result.images - IMAGES, "l0") - fewest
    assert jnp.all((more >= 0) & (more <= 1)) and jnp.sum(more > 0) <= 2, more  # σ-zero needs none more, see there


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("targeted", [False, True])
def test_within_a_percent_of_the_distance_to_the_plane(norm, targeted):
    distance = margin(linear(IMAGES), LABELS) / per_example_norm(NORMAL[None], dual_norm(norm))[0]
    labels = 1 - LABELS if targeted else LABELS
    result = fmn(linear, None, IMAGES, labels, norm=norm, bounds=FREE, num_steps=300, targeted=targeted)
    ratio = per_example_norm(result.images - IMAGES, norm) / distance
    assert jnp.all(result.found) and jnp.all((ratio >= 1 - 1e-5) & (ratio <= 1.01)), ratio


def test_a_box_that_cuts_perturbations_short_does_not_keep_it_from_crossing():
    """The three steepest features have next to no room, so ‖δ‖₁ stays below ε: the paper's estimate would stall there."""
    images = jnp.asarray([[0.01, 0.01, 0.01, 0.9, 0.9, 0.9]])
    weights = jnp.asarray([[1.0, 1.0, 1.0, 0.5, 0.4, 0.3]]).T
    plane = lambda x: jnp.concatenate([x @ weights - 0.6, 0 * x[:, :1]], 1)  # noqa: E731
    result = fmn(plane, None, images, jnp.array([0]), norm="l1")
    assert jnp.all(result.found)
    assert per_example_norm(result.images - images, "l1")[0] <= 1.05 * (0.03 + (1.11 - 0.6 - 0.03) / 0.5)


@pytest.mark.parametrize("settings", [
    {"objective": cross_entropy}, {"objective": dlr}, {"optimizer": optax.trace(0.9), "initial_step_size": 0.1},
    {"optimizer": optax.scale_by_adam(), "initial_step_size": 0.2},
    {"step_size_schedule": optax.linear_schedule(1.0, 0.0, 200)}, {"linear_estimate": False},
])  # fmt: skip
def test_other_losses_optimisers_and_schedules_find_the_same(settings):
    third = lambda images: jnp.concatenate([linear(images), jnp.full((8, 1), -50.0)], 1)  # noqa: E731
    result = fmn(third, None, IMAGES, LABELS, norm="l2", bounds=FREE, num_steps=200, **settings)
    distance = margin(linear(IMAGES), LABELS) / jnp.linalg.norm(NORMAL)
    ratio = per_example_norm(result.images - IMAGES, "l2") / distance
    # Adam makes a constant gradient its sign, which is not the shortest way in L2.
    longer = 12**0.5 * jnp.linalg.norm(NORMAL) / jnp.sum(jnp.abs(NORMAL)) if settings.get("initial_step_size") == 0.2 else 1
    assert jnp.all(result.found) and jnp.all(ratio >= 1 - 1e-5) and jnp.median(ratio) <= 1.02 * longer, ratio


def test_an_optimiser_sees_one_row_at_a_time():
    """A clip by global norm is one row's norm, and a plateau is one row's plateau."""
    rule = optax.chain(optax.clip_by_global_norm(0.5), optax.contrib.reduce_on_plateau(factor=0.5, patience=1))
    run = lambda rows: fmn(linear, None, IMAGES[rows], LABELS[rows], norm="l2", num_steps=30, optimizer=rule).images  # noqa: E731
    np.testing.assert_allclose(run(slice(0, 2)), run(slice(0, 8))[:2], atol=1e-6)


@pytest.mark.parametrize("change", [
    {"norm": "rms"}, {"initial_step_size": 0.0}, {"final_step_size": -1.0}, {"initial_gamma": 1.0}, {"final_gamma": -0.1},
])  # fmt: skip
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError) as error:
        fmn(linear, None, IMAGES, LABELS, **change)
    assert error.value.name == next(iter(change))
