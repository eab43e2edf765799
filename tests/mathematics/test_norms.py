"""Norms against numpy, and the defining inequality of dual norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import dual_norm, normalize, per_example_norm, steepest_direction

DELTA = jnp.asarray(np.random.RandomState(0).randn(4, 3, 2, 5), jnp.float32).at[1, 0].set(0)


@pytest.mark.parametrize("norm, oracle", [
    ("linf", lambda row: np.linalg.norm(row, np.inf)),
    ("l2", np.linalg.norm),
    ("l1", lambda row: np.linalg.norm(row, 1)),
    ("l0", np.count_nonzero),
    ("rms", lambda row: np.sqrt(np.mean(row**2))),
])  # fmt: skip
def test_norms_are_numpys(norm, oracle):
    found = per_example_norm(DELTA, norm)
    assert found.shape == (4,)
    np.testing.assert_allclose(found, [oracle(np.asarray(row).ravel()) for row in DELTA], rtol=1e-6)


def test_the_floor_gives_the_norm_of_zero_a_finite_gradient():
    zero = jnp.zeros((2, 7))
    np.testing.assert_allclose(per_example_norm(zero, "rms", floor=1e-12), 1e-6, rtol=1e-5)
    gradient = jax.grad(lambda delta: per_example_norm(delta, "rms", floor=1e-12).sum())(zero)
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_steepest_direction_attains_the_dual_norm(norm):
    direction = steepest_direction(DELTA, norm)
    np.testing.assert_allclose(per_example_norm(direction, norm), 1, rtol=1e-6)
    reached = jnp.sum((DELTA * direction).reshape(4, -1), axis=1)
    np.testing.assert_allclose(reached, per_example_norm(DELTA, dual_norm(norm)), rtol=1e-5)


def test_an_l1_step_may_be_shared_by_the_largest_features():
    gradient = jnp.array([[5.0, -4.0, 1.0, 0.0], [2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[0.5, -0.5, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 0]]  # ties share, zeros take no part
    np.testing.assert_allclose(steepest_direction(gradient, "l1", num_features=2), expected, rtol=1e-6)


def test_the_features_that_share_a_step_are_exactly_the_largest():
    gradient = np.random.RandomState(4).randn(5, 40).astype(np.float32) * np.float32(10.0) ** np.arange(-20, 20)
    for count in (2, 7, 39, 40):
        moved = np.asarray(steepest_direction(jnp.asarray(gradient), "l1", num_features=count)) != 0
        for row, chosen in zip(np.abs(gradient), moved, strict=True):
            np.testing.assert_array_equal(np.flatnonzero(chosen), np.sort(np.argsort(row)[-count:]))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "rms"])
def test_normalize_survives_zeros_and_tiny_values(norm):
    delta = jnp.stack([jnp.zeros(6), jnp.full(6, 1e-30), jnp.arange(6.0)])
    unit = normalize(delta, norm)
    np.testing.assert_allclose(per_example_norm(unit, norm), [0, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("call", [
    lambda: per_example_norm(DELTA, "l3"),
    lambda: per_example_norm(jnp.ones(3), "l2"),
    lambda: dual_norm("l0"),
    lambda: normalize(DELTA, "l0"),
    lambda: steepest_direction(DELTA, "l1", num_features=0),
    lambda: steepest_direction(DELTA, "l1", num_features=31),
])  # fmt: skip
def test_what_cannot_be_is_refused(call):
    with pytest.raises(SettingError):
        call()
