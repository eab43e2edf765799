"""PGD₀ against the exact answer of a linear network, points recorded from the authors' code, and what its docstring promises."""

import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.pgd0 import by_pixel, pgd0
from bap_jax.errors import SettingError
from bap_jax.mathematics import margin, misclassified
from bap_jax.types import Bounds

module = importlib.import_module("bap_jax.attacks.pgd0")  # the package has the function under this name

STATIC = ("logits_fn", "bounds", "num_steps", "restarts", "targeted")
attack = jax.jit(pgd0, static_argnames=STATIC)
RECORDED = json.loads((pathlib.Path(__file__).parent / "pgd0.json").read_text())
_random = np.random.RandomState(0)
W1, B1, W2 = _random.randn(60, 10) * 0.1, _random.randn(10) * 0.25, _random.randn(10, 4)
W1, B1, W2 = (jnp.asarray(array, jnp.float32) for array in (W1, B1, W2))
IMAGES = jnp.asarray(_random.rand(8, 5, 4, 3), jnp.float32)
START = jnp.asarray(_random.rand(8, 5, 4, 3), jnp.float32)
LABELS = jnp.asarray(RECORDED["labels"])
KEYS = jax.random.split(jax.random.key(0), 8)
LINE = jnp.asarray(np.random.RandomState(3).randn(60, 2), jnp.float32)


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ W1 + B1[None]) @ W2


def linear(images):
    return images.reshape(len(images), -1) @ LINE + jnp.array([[22.0, 0.0]])


def pixels_needed(images, labels, bounds):
    """The fewest pixels with which a linear network can be fooled: those that gain most, moved to their best corners."""
    slope = jnp.where(labels[:, None] == 0, 1, -1) * (LINE[:, 1] - LINE[:, 0])[None]
    flat = images.reshape(len(images), -1)
    gain = jnp.maximum(slope * (bounds.upper - flat), slope * (bounds.lower - flat))
    gain = -jnp.sort(-by_pixel(gain.reshape(images.shape)).sum(axis=2), axis=1)
    return 1 + jnp.sum(jnp.cumsum(gain, axis=1) <= margin(linear(images), labels)[:, None], axis=1)


def changed_pixels(result, images):
    return jnp.sum(jnp.any(by_pixel(result.images) != by_pixel(images), axis=2), axis=1)


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(-2.0, 1.0)])
def test_a_linear_network_needs_as_many_pixels_as_it_needs(bounds):
    images = bounds.lower + (bounds.upper - bounds.lower) * IMAGES
    labels = jnp.argmax(linear(images), axis=1)
    needed = pixels_needed(images, labels, bounds)
    assert len(set(needed.tolist())) > 2
    for count, expected in ((needed, True), (needed - 1, False)):
        result = attack(linear, KEYS, images, labels, num_pixels=count, bounds=bounds, num_steps=30, restarts=2)
        np.testing.assert_array_equal(result.found, expected)
        np.testing.assert_array_equal(misclassified(linear(result.images), labels), expected)
        assert jnp.all(changed_pixels(result, images) <= count)
        assert jnp.all((result.images >= bounds.lower) & (result.images <= bounds.upper))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_iterates_of_the_authors(count, monkeypatch):
    """Recorded with project_L0_box and perturb_L0_box of fra31/sparse-imperceivable-attacks (pgd_attacks_pt.py of 2e443b8, numpy
    2.3, float64), num_steps=12, step_size=2, START in place of its random start: the latest adversarial iterate of the first
    eleven, which are our start and what follows ten steps."""
    monkeypatch.setattr(module, "_uniform", lambda key, restart, images: key)
    monkeypatch.setattr(module, "check_keys", lambda keys, images: None)
    recorded = RECORDED[str(count)]
    result = pgd0(network, START, IMAGES, LABELS, num_pixels=count, num_steps=10, restarts=1, step_size=2.0)
    np.testing.assert_array_equal(result.found, recorded["found"])
    for got, expected in zip(result.images, recorded["adversarial"], strict=True):
        if expected:
            np.testing.assert_allclose(got.ravel(), expected, atol=2e-5)


def test_the_recorded_points_are_of_both_kinds():
    found = np.array([RECORDED[str(count)]["found"] for count in (1, 2, 3)])
    assert 0.2 < found.mean() < 0.9
    np.testing.assert_array_equal(jnp.argmax(network(IMAGES), axis=1), LABELS)


def test_rows_do_not_influence_each_other_and_budgets_are_per_row():
    counts = jnp.array([0, 1, 2, 3, 4, 5, 20, 99])
    settings = {"num_steps": 4, "restarts": 2}
    whole = attack(network, KEYS, IMAGES, LABELS, num_pixels=counts, **settings)
    assert jnp.all(changed_pixels(whole, IMAGES) <= counts)
    np.testing.assert_array_equal(whole.images[0], IMAGES[0])
    assert whole.loss.shape == (4, 8) and jnp.all(jnp.isfinite(whole.loss))
    padded = attack(network, KEYS, IMAGES.at[3:].set(0), LABELS.at[3:].set(0), num_pixels=counts, **settings)
    np.testing.assert_allclose(padded.images[:3], whole.images[:3], atol=1e-6)
    np.testing.assert_allclose(padded.loss[:, :3], whole.loss[:, :3], atol=1e-5)


def test_restarts_only_help_and_a_number_is_as_good_as_one_per_row():
    counts = jnp.full(8, 1)
    one = attack(network, KEYS, IMAGES, LABELS, num_pixels=counts, num_steps=4, restarts=1)
    two = attack(network, KEYS, IMAGES, LABELS, num_pixels=counts, num_steps=4, restarts=2)
    assert jnp.all(two.found | ~one.found) and not jnp.all(two.found)
    np.testing.assert_array_equal(two.images[one.found], one.images[one.found])
    plain = attack(network, KEYS, IMAGES, LABELS, num_pixels=1, num_steps=4, restarts=1)
    np.testing.assert_allclose(plain.images, one.images, atol=1e-5)


def test_targeted_and_already_there():
    targets = (LABELS + 1) % 4
    wanted = {"num_pixels": jnp.full(8, 8), "num_steps": 20, "restarts": 1, "targeted": True}
    result = attack(network, KEYS, IMAGES, targets, **wanted)
    np.testing.assert_array_equal(result.found, jnp.argmax(network(result.images), axis=1) == targets)
    assert jnp.sum(result.found) >= 5
    there = attack(network, KEYS, IMAGES, LABELS, **wanted)
    np.testing.assert_array_equal(there.images, IMAGES)
    np.testing.assert_array_equal(there.found, True)


def test_zero_gradients_give_no_nan_and_ties_no_pixel_too_many():
    def flat(images):
        return jnp.zeros((len(images), 2))

    def tied(images):  # all pixels gain the same
        total = images.sum(axis=(1, 2, 3))[:, None]
        return jnp.concatenate([-total + 100, total - 100], axis=1)

    zeros = jnp.zeros(8, int)
    result = attack(flat, KEYS, IMAGES, zeros, num_pixels=2, num_steps=3, restarts=1)
    assert jnp.all(jnp.isfinite(result.images)) and jnp.all(jnp.isfinite(result.loss)) and not jnp.any(result.found)
    result = attack(tied, KEYS, jnp.full_like(IMAGES, 0.5), zeros, num_pixels=3, num_steps=3, restarts=1)
    np.testing.assert_array_equal(changed_pixels(result, jnp.full_like(IMAGES, 0.5)), 3)


@pytest.mark.parametrize("change, name", [
    ({"num_pixels": -1}, "num_pixels"),
    ({"num_pixels": 1.5}, "num_pixels"),
    ({"num_pixels": jnp.ones(3, int)}, "num_pixels"),
    ({"num_pixels": jnp.ones(8)}, "num_pixels"),
    ({"num_steps": 0}, "num_steps"),
    ({"restarts": 0}, "restarts"),
    ({"step_size": -1.0}, "step_size"),
    ({"bounds": Bounds(-float("inf"), float("inf"))}, "bounds"),
])  # fmt: skip
def test_what_cannot_be_is_refused(change, name):
    with pytest.raises(SettingError) as error:
        pgd0(network, KEYS, IMAGES, LABELS, **{"num_pixels": 1, **change})
    assert error.value.name == name
    with pytest.raises(SettingError, match="keys"):
        pgd0(network, None, IMAGES, LABELS, num_pixels=1)
