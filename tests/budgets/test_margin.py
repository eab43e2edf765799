import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bap_jax.budgets import margin_search
from bap_jax.errors import SettingError


def threshold_net(cut):
    """Class 1 where the first pixel exceeds the cut."""
    return lambda x: jnp.stack([cut - x[:, 0], x[:, 0] - cut], axis=-1)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(0, 12))
def test_bisection_brackets_the_crossing_from_the_adversarial_side(cut, num_bisections):
    margin = margin_search(threshold_net(cut), jnp.zeros((1, 1)), jnp.array([0]), jnp.ones((1, 1)), num_bisections=num_bisections)
    fraction = float(margin.fraction[0])
    assert bool(margin.found[0])
    assert cut - 1e-6 <= fraction <= cut + 2.0**-num_bisections + 1e-6


def test_wrong_already_is_zero_and_never_is_one():
    net, images, labels = threshold_net(0.5), jnp.array([[0.9], [0.0], [0.0]]), jnp.array([0, 0, 0])
    for options in ({}, {"grid": 5}):
        margin = margin_search(net, images, labels, jnp.array([[0.05], [0.3], [0.8]]), **options)
        assert float(margin.fraction[0]) == 0.0 and float(margin.fraction[1]) == 1.0
        assert margin.found.tolist() == [True, False, True]


def striped(x):
    """Misclassified on (0.2, 0.3) and from 0.7 on: not monotone along the way."""
    wrong = ((x[:, 0] > 0.2) & (x[:, 0] < 0.3)) | (x[:, 0] > 0.7)
    return jnp.stack([1.0 - wrong, 1.0 * wrong], axis=-1)


def test_where_misclassification_is_not_monotone_only_the_grid_finds_the_first_crossing():
    arguments = striped, jnp.zeros((1, 1)), jnp.array([0]), jnp.ones((1, 1))
    assert float(margin_search(*arguments, num_bisections=10).fraction[0]) == pytest.approx(0.7, abs=2e-3)
    assert float(margin_search(*arguments, grid=20).fraction[0]) == pytest.approx(0.25)


def test_a_linear_network_s_margin_is_its_distance():
    weights = jax.random.normal(jax.random.key(0), (6, 2))
    images = jax.random.uniform(jax.random.key(1), (5, 6))
    logits_fn = lambda x: x @ weights  # noqa: E731
    labels = jnp.argmax(logits_fn(images), -1)
    normal = jnp.where(labels == 0, 1.0, -1.0)[:, None] * (weights[:, 1] - weights[:, 0])[None]
    direction = 10 * normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
    gap = jnp.abs(images @ (weights[:, 1] - weights[:, 0]))
    distance = gap / jnp.linalg.norm(weights[:, 1] - weights[:, 0])
    margin = margin_search(logits_fn, images, labels, direction, num_bisections=20)
    np.testing.assert_allclose(10 * margin.fraction, distance, rtol=1e-3)


def test_rows_do_not_influence_each_other():
    net, key = threshold_net(0.4), jax.random.key(0)
    images, direction = jax.random.uniform(key, (6, 1)), jnp.ones((6, 1))
    together = margin_search(net, images, jnp.zeros(6, int), direction)
    alone = [margin_search(net, images[i : i + 1], jnp.zeros(1, int), direction[:1]).fraction[0] for i in range(6)]
    np.testing.assert_array_equal(together.fraction, jnp.stack(alone))


def test_refusals():
    net, images, labels = threshold_net(0.5), jnp.zeros((2, 1)), jnp.zeros(2, int)
    with pytest.raises(SettingError, match="direction"):
        margin_search(net, images, labels, jnp.zeros((1, 1)))
    with pytest.raises(SettingError, match="num_bisections = -1"):
        margin_search(net, images, labels, images, num_bisections=-1)
    with pytest.raises(SettingError, match="grid = 0"):
        margin_search(net, images, labels, images, grid=0)


@pytest.mark.parametrize("halving", ["log", "linear"])
def test_points_without_an_answer_are_not_misclassified(halving):
    """Beyond half of the way the network answers NaN, which is no mistake of it."""
    images, labels = jnp.zeros((2, 1)), jnp.array([0, 0])

    def logits_fn(points):
        return jnp.where(points > 0.5, jnp.nan, jnp.concatenate([1 - points, points], axis=1))

    margin = margin_search(logits_fn, images, labels, jnp.ones((2, 1)), halving=halving)
    assert not margin.found.any() and (margin.fraction == 1).all()
