"""Bayesian optimisation in the unit cube: a known minimum is found in fewer evaluations than at random."""

import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation.proposals import propose

MINIMUM = np.array([0.62, 0.17])


def bowl(point):
    return float(np.sum((np.asarray(point) - MINIMUM) ** 2) + 0.02 * np.sin(20 * point[0]))


def search(count, num_first, seed):
    points, values = [], []
    for _ in range(count):
        points.append(propose(points, values, 2, num_first=num_first, seed=seed))
        values.append(bowl(points[-1]))
    return np.array(points), values


@pytest.mark.parametrize("seed", range(2))
def test_it_comes_nearer_than_an_even_spread(seed):
    points, values = search(20, 8, seed)
    grid = np.linspace(0, 1, 101)
    smallest = min(bowl((x, y)) for x in grid for y in grid)
    even = min(search(20, 20, seed)[1])
    assert min(values) - smallest < 3e-3 and min(values) <= even
    assert ((points >= 0) & (points <= 1)).all()
    assert len(np.unique(points, axis=0)) == 20  # nowhere twice


def test_the_first_points_fill_the_cube():
    points = search(32, 32, 0)[0]
    for axis in range(2):
        assert (np.histogram(points[:, axis], bins=8, range=(0, 1))[0] >= 2).all()


def test_failures_are_avoided_and_the_same_is_proposed_again():
    tried = np.array([[0.1], [0.3], [0.6], [0.9]])
    found = [np.inf, 0.5, 0.1, np.inf]
    first = propose(tried, found, 1, num_first=4, seed=1)
    assert 0.3 < first[0] < 0.9
    np.testing.assert_array_equal(first, propose(tried, found, 1, num_first=4, seed=1))
    assert propose(tried, [np.inf] * 4, 1, num_first=2).shape == (1,)  # nothing to learn from yet
    assert propose(tried, [0.2] * 4, 1, num_first=4).shape == (1,)


@pytest.mark.parametrize(
    ("points", "values", "name"), [([[0.5]], [], "values"), ([[0.5]], [np.nan], "values"), ([[1.5]], [0.0], "points")]
)
def test_what_makes_no_sense_is_refused(points, values, name):
    with pytest.raises(SettingError, match=name):
        propose(points, values, 1, num_first=1)
