"""DeepFool finds the analytic distance on linear networks; both of its forms; freezing, references and early stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import bap_deepfool, deepfool
from bap_jax.errors import SettingError
from bap_jax.mathematics import dual_norm, per_example_norm
from bap_jax.types import Bounds

FREE = Bounds(-float("inf"), float("inf"))
_random = np.random.RandomState(7)
WEIGHTS = jnp.asarray(_random.randn(10, 5), jnp.float32)
HIDDEN = jnp.asarray(_random.randn(10, 12), jnp.float32)
OUT = jnp.asarray(_random.randn(12, 5), jnp.float32)
IMAGES = jnp.asarray(_random.rand(8, 10), jnp.float32)


def linear(images):
    return images @ WEIGHTS


def network(images):
    return jnp.tanh((images - 0.5) @ HIDDEN) @ OUT


def predictions(images):
    return jnp.argmax(network(images), axis=1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_on_a_linear_network_it_stops_just_beyond_the_nearest_plane(norm):
    logits = linear(IMAGES)
    own = jnp.argmax(logits, axis=1)
    normals = WEIGHTS.T[None] - WEIGHTS.T[own][:, None]  # [B, K, D]
    sizes = jax.vmap(lambda rows: per_example_norm(rows, dual_norm(norm)))(normals)
    lead = logits[jnp.arange(8), own][:, None] - logits
    nearest = jnp.min(jnp.where(sizes > 0, lead / sizes, jnp.inf), axis=1)
    result = deepfool(linear, None, IMAGES, own, norm=norm, bounds=FREE, num_steps=3)
    np.testing.assert_array_equal(result.found, True)
    np.testing.assert_allclose(per_example_norm(result.images - IMAGES, norm), 1.02 * (nearest + 1e-4), rtol=1e-3)


def test_the_form_of_blind_pruning_written_out():
    """One example, plain numpy loops: the iterate without overshoot, the result with it."""
    jacobian = jax.jit(jax.jacrev(lambda image: network(image[None])[0]))
    result = bap_deepfool(network, None, IMAGES, predictions(IMAGES))
    for image, got in zip(np.asarray(IMAGES), np.asarray(result.images), strict=True):
        total, start = np.zeros(10), int(predictions(image[None])[0])
        for _ in range(5):
            current = jnp.clip(image + total, 0, 1).astype(jnp.float32)
            logits, slopes = np.asarray(network(current[None])[0]), np.asarray(jacobian(current))
            if logits.argmax() != start:
                break
            normals = {k: slopes[k] - slopes[start] for k in range(5) if k != start}
            lengths = {k: (abs(logits[k] - logits[start]) + 1e-5) / np.linalg.norm(w) for k, w in normals.items()}
            nearest = min(lengths, key=lengths.get)
            total += lengths[nearest] * normals[nearest] / np.linalg.norm(normals[nearest])
        np.testing.assert_allclose(got, np.clip(image + 1.02 * total, 0, 1), atol=1e-4)


def test_an_example_that_is_wrong_already_is_left_or_pushed_away_as_asked():
    wrong = (predictions(IMAGES) + 1) % 5
    left = deepfool(network, None, IMAGES, wrong, reference="label")
    np.testing.assert_array_equal(left.images, IMAGES)
    np.testing.assert_array_equal(left.found, True)
    pushed = deepfool(network, None, IMAGES, wrong, reference="prediction")
    assert jnp.all(predictions(pushed.images) != predictions(IMAGES))


def test_rows_are_independent_and_early_stop_changes_nothing():
    labels = predictions(IMAGES)
    whole = deepfool(network, None, IMAGES, labels, num_steps=30)
    part = deepfool(network, None, IMAGES[:2], labels[:2], num_steps=30)
    np.testing.assert_allclose(part.images, whole.images[:2], atol=1e-5)
    stopped = jax.jit(lambda: deepfool(network, None, IMAGES, labels, num_steps=30, early_stop=True))()
    np.testing.assert_allclose(stopped.images, whole.images, atol=1e-5)
    np.testing.assert_array_equal(whole.found, True)
    np.testing.assert_array_equal(stopped.loss[-1], 0)  # it did stop
    assert whole.loss.shape == (30, 8)
    assert jnp.all((whole.images >= 0) & (whole.images <= 1))


def test_fewer_candidates_never_find_a_nearer_plane_of_a_linear_network():
    own = jnp.argmax(linear(IMAGES), axis=1)
    settings = {"bounds": FREE, "num_steps": 1}
    moved = [deepfool(linear, None, IMAGES, own, num_candidates=count, **settings).images - IMAGES for count in (2, 10)]
    sizes = [per_example_norm(delta, "l2") for delta in moved]
    assert jnp.all(sizes[0] >= sizes[1] - 1e-6) and jnp.any(sizes[0] > sizes[1] + 1e-3)


def test_a_flat_network_gives_no_nan():
    result = deepfool(lambda images: jnp.tile(jnp.arange(3.0)[None], (8, 1)) + 0 * images[:, :1], None, IMAGES, jnp.full(8, 2))
    np.testing.assert_array_equal(result.images, IMAGES)
    assert not jnp.any(result.found) and jnp.all(jnp.isfinite(result.loss))


@pytest.mark.parametrize("change", [
    {"norm": "l1"}, {"num_steps": 0}, {"num_candidates": 1}, {"overshoot": -0.1}, {"overshoot": float("nan")},
    {"reference": "target"}, {"margin_slack": -1.0}, {"distance_slack": -1.0},
])  # fmt: skip
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError) as error:
        deepfool(network, None, IMAGES, predictions(IMAGES), **change)
    assert error.value.name == next(iter(change))


def test_one_class_is_refused():
    with pytest.raises(SettingError, match="at least two classes"):
        deepfool(lambda images: images[:, :1], None, IMAGES, predictions(IMAGES))
