"""Projections are optimal: checked against a sort-based threshold and against every nearby feasible point tried."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.projections import clip_to_bounds, project_ball, project_l1_ball_in_box, uniform_in_ball
from bap_jax.types import Bounds

NORMS = ["linf", "l2", "l1", "rms"]
values = st.floats(-10, 10, width=32, allow_subnormal=False)  # XLA flushes subnormal numbers to zero
project = jax.jit(project_ball, static_argnames="norm")
project_in_box = jax.jit(project_l1_ball_in_box)


def sorted_l1_projection(row: np.ndarray, radius: float) -> np.ndarray:
    """The textbook way, in float64: sort, find the last feature that stays, subtract the threshold."""
    row = row.astype(np.float64)
    if np.abs(row).sum() <= radius:
        return row
    ordered = np.sort(np.abs(row))[::-1]
    thresholds = (np.cumsum(ordered) - radius) / np.arange(1, row.size + 1)
    alpha = max(thresholds[np.nonzero(ordered > thresholds)[0][-1]], 0) if radius > 0 else np.inf
    return np.sign(row) * np.maximum(np.abs(row) - alpha, 0)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (3, 7), elements=values), st.just(0.0) | st.floats(0.125, 20, width=32))
def test_l1_is_the_sorted_projection(delta, radius):
    expected = np.stack([sorted_l1_projection(row, radius) for row in delta])
    np.testing.assert_allclose(project(jnp.asarray(delta), radius, norm="l1"), expected, atol=2e-5)


def test_l1_is_exact_for_many_features_of_very_different_sizes():
    delta = np.exp(np.random.RandomState(0).randn(4, 3000) * 4).astype(np.float32)
    for radius in (1e-3, 1.0, 1e3):
        found = project_ball(jnp.asarray(delta), radius, "l1")
        expected = np.stack([sorted_l1_projection(row, radius) for row in delta])
        np.testing.assert_allclose(found, expected, atol=2e-6 * delta.max())
        assert np.all(per_example_norm(found, "l1") <= radius + 2e-6 * delta.max())


@pytest.mark.parametrize("norm", NORMS)
def test_no_feasible_point_is_nearer(norm):
    random = np.random.RandomState(1)
    delta = jnp.asarray(random.randn(1, 3) * 2, jnp.float32)
    found = project_ball(delta, 0.7, norm)
    others = jnp.asarray(random.uniform(-1.3, 1.3, (20000, 3)), jnp.float32)
    others = others[per_example_norm(others, norm) <= 0.7]
    assert len(others) > 100
    distances = jnp.linalg.norm(others - delta, axis=1)
    assert jnp.linalg.norm(found - delta) <= distances.min() + 1e-6


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=25, deadline=None)
@given(delta=hnp.arrays(np.float32, (3, 5), elements=values), radii=hnp.arrays(np.float32, 3, elements=st.floats(0, 5, width=32)))
def test_inside_stays_outside_lands_in_the_ball_and_a_second_time_changes_nothing(norm, delta, radii):
    delta = jnp.asarray(delta)
    found = project(delta, jnp.asarray(radii), norm=norm)
    assert np.all(np.asarray(per_example_norm(found, norm)) <= radii * (1 + 1e-5) + 4e-6)
    np.testing.assert_allclose(project(found, jnp.asarray(radii), norm=norm), found, atol=1e-5)
    inside = np.asarray(per_example_norm(delta, norm)) <= radii
    np.testing.assert_array_equal(np.asarray(found)[inside], np.asarray(delta)[inside])


@pytest.mark.parametrize("norm", NORMS)
def test_zero_radius_gives_exactly_zero(norm):
    delta = jnp.asarray(np.random.RandomState(0).randn(3, 9), jnp.float32).at[0].set(0)
    np.testing.assert_array_equal(project_ball(delta, jnp.zeros(3), norm), 0)


def kinked_l1_projection(delta: np.ndarray, room: np.ndarray, radius: float) -> np.ndarray:
    """On the L1 ball and the box, in float64: the threshold lies between two kinks, where the norm is linear in it."""
    magnitude = np.abs(delta).astype(np.float64)
    cut = lambda alpha: np.clip(magnitude - alpha, 0, room)  # noqa: E731
    if cut(0).sum() <= radius:
        return np.sign(delta) * cut(0)
    kinks = np.unique(np.concatenate([[0], magnitude, np.maximum(magnitude - room, 0)]))
    norms = np.array([cut(kink).sum() for kink in kinks])
    alpha = np.interp(-radius, -norms, kinks)
    return np.sign(delta) * cut(alpha) if radius > 0 else 0 * magnitude


@settings(max_examples=60, deadline=None)
@given(
    delta=hnp.arrays(np.float32, (3, 7), elements=values),
    images=hnp.arrays(np.float32, (3, 7), elements=st.floats(-1, 2, width=32)),
    radii=hnp.arrays(np.float32, 3, elements=st.floats(0, 8, width=32)),
)
def test_l1_in_the_box_is_the_exact_projection(delta, images, radii):
    bounds = Bounds(jnp.full(7, -1.0), jnp.arange(7) * 0.5 + 2)
    found = np.asarray(project_in_box(jnp.asarray(delta), jnp.asarray(images), jnp.asarray(radii), bounds))
    upper = np.arange(7) * 0.5 + 2
    for row in range(3):
        room = np.where(delta[row] > 0, upper - images[row], images[row] + 1)
        np.testing.assert_allclose(found[row], kinked_l1_projection(delta[row], room, radii[row]), atol=1e-4)
    assert np.all(np.abs(found).sum(axis=1) <= radii + 1e-4)
    assert np.all((images + found >= -1 - 1e-6) & (images + found <= upper + 1e-6))


@pytest.mark.parametrize("radius", [0.125, 3.0, 12.0])
def test_l1_in_the_box_is_exact_for_many_features(radius):
    random = np.random.RandomState(0)
    images, delta = (
        random.rand(4, 3000).astype(np.float32),
        np.exp(random.randn(4, 3000) * 2 - 2) * np.sign(random.randn(4, 3000)),
    )
    delta = delta.astype(np.float32)
    found = project_in_box(jnp.asarray(delta), jnp.asarray(images), radius, Bounds())
    room = np.where(delta > 0, 1 - images, images)
    expected = np.stack([kinked_l1_projection(*rows, radius) for rows in zip(delta, room, strict=True)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.abs(found).sum(axis=1), radius, rtol=1e-4)


def test_without_walls_the_box_changes_nothing_and_walls_are_not_simply_cut_off():
    random = np.random.RandomState(1)
    images, delta = jnp.asarray(random.rand(3, 20), jnp.float32), jnp.asarray(random.randn(3, 20), jnp.float32)
    free = project_in_box(delta, images, 2.0, Bounds(-jnp.inf, jnp.inf))
    np.testing.assert_allclose(free, project_ball(delta, 2.0, "l1"), atol=1e-5)
    walled = project_in_box(delta, images, 2.0, Bounds())
    np.testing.assert_allclose(per_example_norm(walled, "l1"), 2.0, rtol=1e-5)
    cut_off = per_example_norm(clip_to_bounds(images + free, Bounds()) - images, "l1")
    np.testing.assert_array_equal(cut_off[:2] < 1.6, True)
    np.testing.assert_array_equal(project_in_box(delta, images, jnp.zeros(3), Bounds()), 0)


def test_bounds_may_be_numbers_or_one_value_per_channel():
    images = jnp.array([[[[-1.0, 0.5, 2.0]]]])
    np.testing.assert_array_equal(clip_to_bounds(images, Bounds()), [[[[0, 0.5, 1]]]])
    per_channel = Bounds(jnp.array([-2.0, 0.75, 0.0]), jnp.array([1.0, 1.0, 1.5]))
    np.testing.assert_array_equal(clip_to_bounds(images, per_channel), [[[[-1, 0.75, 1.5]]]])


@pytest.mark.parametrize("norm, moment", [("linf", 4 / 3), ("l2", 4 / 6), ("l1", 4 * 2 / (6 * 5)), ("rms", 4 * 4 / 6)])
def test_points_are_uniform_in_the_ball(norm, moment):
    """E Σδ² of a uniform point, D = 4: D/3 for the cube, D/(D+2) for the ball, 2D/((D+1)(D+2)) for the cross-polytope."""
    points = jax.vmap(lambda key: uniform_in_ball(key, (2, 2), norm))(jax.random.split(jax.random.key(0), 20000))
    assert per_example_norm(points, norm).max() <= 1 + 1e-6
    np.testing.assert_allclose(jnp.mean(jnp.sum(points**2, axis=(1, 2))), moment, rtol=0.03)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.03)


@pytest.mark.parametrize("call", [
    lambda: project_ball(jnp.ones((2, 3)), -0.1, "linf"),
    lambda: project_ball(jnp.ones((2, 3)), float("nan"), "l2"),
    lambda: project_ball(jnp.ones((2, 3)), jnp.ones(3), "l2"),
    lambda: project_ball(jnp.ones((2, 3)), 1.0, "l0"),
    lambda: project_l1_ball_in_box(jnp.ones((2, 3)), jnp.ones((2, 3)), -1.0, Bounds()),
    lambda: project_l1_ball_in_box(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(3), Bounds()),
    lambda: uniform_in_ball(jax.random.key(0), (2,), "l0"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call):
    with pytest.raises(SettingError):
        call()
