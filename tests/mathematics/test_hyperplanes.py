"""Steps to planes are the shortest: against linear programs (L∞, L1) and against every choice of walls (L2)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from bap_jax.errors import SettingError
from bap_jax.mathematics.hyperplanes import step_to_plane
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.types import Bounds

NORMS = ["linf", "l2", "l1"]
step = jax.jit(step_to_plane, static_argnames="norm")


def reach(normal, residual, low, high):
    """The most that δ in [low, high] can do about the residual."""
    wanted = -np.sign(residual) * normal
    return np.sum(np.maximum(wanted * low, wanted * high))


def shortest(normal, residual, low, high, norm):
    """The least norm of a δ with ⟨w, δ⟩ = −c and low ≤ δ ≤ high, in float64; the plane is known to be in reach."""
    size = len(normal)
    if norm == "l2":
        best = np.inf
        for walls in itertools.product((-1, 0, 1), repeat=size):  # at the lower wall, free, at the upper wall
            walls = np.array(walls)
            delta = np.where(walls < 0, low, np.where(walls > 0, high, 0.0))
            free = np.where(walls == 0, normal, 0.0)
            left = -residual - normal @ delta
            if free @ free > 0:
                delta = delta + free * left / (free @ free)
            elif abs(left) > 1e-9:
                continue
            if np.all((delta >= low - 1e-9) & (delta <= high + 1e-9)):
                best = min(best, np.linalg.norm(delta))
        return best
    identity = np.eye(size)
    if norm == "linf":  # variables δ and t ≥ |δ_i|
        cost, limits = np.append(np.zeros(size), 1), [*zip(low, high, strict=True), (0, None)]
        above = np.block([[identity, -np.ones((size, 1))], [-identity, -np.ones((size, 1))]])
        equal = np.append(normal, 0.0)[None]
    else:  # variables δ and t_i ≥ |δ_i|
        cost, limits = np.append(np.zeros(size), np.ones(size)), [*zip(low, high, strict=True), *[(0, None)] * size]
        above = np.block([[identity, -identity], [-identity, -identity]])
        equal = np.append(normal, np.zeros(size))[None]
    found = linprog(cost, A_ub=above, b_ub=np.zeros(2 * size), A_eq=equal, b_eq=[-residual], bounds=limits)
    assert found.status == 0, found.message
    return found.fun


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 0.98), sides=st.sampled_from([(0, 1), (-1, 1), (-3, 0.5)]))
def test_no_step_is_shorter(norm, seed, share, sides):
    random = np.random.RandomState(seed)
    lower, upper = sides
    point = lower + (upper - lower) * random.choice([0.0, 1.0, random.rand()], size=5) * random.choice([1, 1, 0.3], size=5)
    normal = random.randn(5) * random.choice([0.0, 0.1, 1.0], size=5)
    normal[random.randint(5)] = 1.0
    normal, point = normal.astype(np.float32).astype(np.float64), point.astype(np.float32).astype(np.float64)
    low, high = lower - point, upper - point
    sign = random.choice([-1, 1])
    residual = np.float64(np.float32(sign * share * reach(normal, sign, low, high)))
    to = [jnp.asarray(array[None], jnp.float32) for array in (point, normal)]
    delta = np.asarray(step(*to, jnp.asarray([residual], jnp.float32), norm=norm, bounds=Bounds(lower, upper)), np.float64)[0]
    assert np.all((delta >= low - 1e-6) & (delta <= high + 1e-6))
    np.testing.assert_allclose(normal @ delta, -residual, atol=1e-5)
    least = shortest(normal, residual, low, high, norm)
    length = {"linf": np.max(np.abs(delta)), "l2": np.linalg.norm(delta), "l1": np.sum(np.abs(delta))}[norm]
    np.testing.assert_allclose(length, least, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_without_walls_it_is_as_long_as_the_distance_to_the_plane(norm):
    random = np.random.RandomState(0)
    normals = jnp.asarray(random.randn(4, 3, 2) * 10.0 ** random.randint(-12, 12, (4, 1, 1)), jnp.float32)
    points, residuals = jnp.asarray(random.randn(4, 3, 2), jnp.float32), jnp.max(jnp.abs(normals), axis=(1, 2))
    residuals = residuals * jnp.asarray([1.0, -2.0, 3.0, -4.0])
    delta = step(points, normals, residuals, norm=norm, bounds=Bounds(-jnp.inf, jnp.inf))
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    scaled = normals / jnp.abs(residuals)[:, None, None]  # squares of the smallest would underflow
    np.testing.assert_allclose(per_example_norm(delta, norm), 1 / per_example_norm(scaled, dual), rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(scaled * delta, axis=(1, 2)), -jnp.sign(residuals), rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_many_features_of_very_different_slopes_and_rooms(norm):
    """Rows may need many Newton steps: the plane is met all the same, and where the multiplier is read off it is one for all."""
    random = np.random.RandomState(1)
    points = jnp.asarray(np.clip(np.exp(-12 * random.rand(40, 3000)), 0, 1), jnp.float32)
    normals = jnp.asarray(random.randn(40, 3000) ** 5, jnp.float32)
    most = np.array([reach(*row) for row in zip(normals, np.ones(40), -points, 1 - points, strict=True)])
    residuals = jnp.asarray(most * np.linspace(0.01, 0.999, 40), jnp.float32)
    delta = np.asarray(step(points, normals, residuals, norm=norm, bounds=Bounds()), np.float64)
    np.testing.assert_allclose(np.sum(np.asarray(normals, np.float64) * delta, axis=1), -residuals, rtol=2e-5)
    assert np.all(delta + np.asarray(points) >= -1e-6) and np.all(delta + np.asarray(points) <= 1 + 1e-6)
    walls = np.abs(np.where(delta < 0, np.asarray(points), 1 - np.asarray(points)) - np.abs(delta)) < 1e-6
    for row, normal, wall in zip(np.abs(delta), np.abs(np.asarray(normals)), walls, strict=True):
        if norm == "l1":
            assert normal[(row > 0) & wall].min(initial=np.inf) >= normal[row == 0].max(initial=0)
            assert np.sum((row > 0) & ~wall) <= 1
            continue
        heavy = ~wall & (normal > 1e-3)
        multipliers = row[heavy] / (1 if norm == "linf" else normal[heavy])
        np.testing.assert_allclose(multipliers, multipliers.max(), rtol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_a_plane_out_of_reach_gets_the_corner_and_a_point_on_it_stays(norm):
    points, normals = jnp.asarray([[0.25, 0.5, 1.0]] * 3), jnp.asarray([[1.0, -2.0, 0.0]] * 2 + [[0.0] * 3])
    delta = step(points, normals, jnp.asarray([9.0, 0.0, 1.0]), norm=norm, bounds=Bounds())
    np.testing.assert_array_equal(delta, [[-0.25, 0.5, 0.0], [0.0] * 3, [0.0] * 3])


def test_equal_slopes_share_an_l1_step_and_infinite_rooms_are_rooms():
    delta = step(jnp.zeros((1, 4)), jnp.ones((1, 4)), jnp.ones(1), norm="l1", bounds=Bounds(-jnp.inf, jnp.inf))
    np.testing.assert_allclose(delta, -0.25)


def test_the_box_may_differ_from_feature_to_feature():
    bounds = Bounds(jnp.asarray([0.0, -1.0]), jnp.asarray([0.5, 1.0]))
    delta = step(jnp.zeros((2, 2)), -jnp.ones((2, 2)), jnp.asarray([1.2, 0.4]), norm="linf", bounds=bounds)
    np.testing.assert_allclose(delta, [[0.5, 0.7], [0.2, 0.2]], rtol=1e-6)


def test_other_norms_are_refused():
    with pytest.raises(SettingError, match="norm"):
        step_to_plane(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones(1), "rms", Bounds())
