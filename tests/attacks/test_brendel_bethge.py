"""Brendel-Bethge: its step beside a general solver, and the nearest adversarial point of linear networks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from bap_jax.attacks._trust_region import nearest_step
from bap_jax.attacks.brendel_bethge import brendel_bethge
from bap_jax.errors import SettingError
from bap_jax.mathematics import per_example_norm
from bap_jax.types import Bounds

NORMS = ("l2", "l1", "linf", "l0")
RANDOM = np.random.RandomState(3)
step_of = jax.jit(nearest_step, static_argnames="norm")


def problems(count, features):
    """Points x₀ + u of the unit box, normals, and planes on both sides of the point."""
    clean, point = RANDOM.uniform(0, 1, (2, count, features))
    normal = RANDOM.randn(count, features)
    asked = np.where(np.arange(count) % 2, 0.05, -0.1) * np.linalg.norm(normal, axis=1)
    return point - clean, normal, asked, RANDOM.uniform(0.15, 1.5, count), -point, 1 - point


def best_by_solver(offset, normal, asked, radius, low, high, norm):
    """The smallest norm that SLSQP finds, from a few starts; an extra variable or two make L1 and L∞ smooth."""
    n = len(offset)
    extra = {"l2": 0, "l1": n, "linf": 1}[norm]
    value = {"l2": lambda v: np.sqrt(np.sum((offset + v) ** 2) + 1e-16), "l1": lambda v: v[n:].sum(), "linf": lambda v: v[n]}[
        norm
    ]
    limits = [lambda v: asked - normal @ v[:n], lambda v: radius**2 - v[:n] @ v[:n]]
    if extra:
        limits += [lambda v: v[n:] - offset - v[:n], lambda v: v[n:] + offset + v[:n]]
    box = [*zip(low, high, strict=True), *[(0, None)] * extra]
    found = np.inf
    for share in (0.0, 0.5, 1.0):
        begin = np.concatenate([np.clip(-share * offset, low, high), np.abs(offset).max() * np.ones(extra)])
        solved = minimize(
            value, begin, bounds=box, constraints=[{"type": "ineq", "fun": limit} for limit in limits], method="SLSQP"
        )
        if all(np.min(limit(solved.x)) > -1e-6 for limit in limits):
            found = min(found, solved.fun)
    return found


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
def test_a_step_is_as_good_as_a_general_solvers(norm):
    given = problems(12, 4)
    steps = np.asarray(step_of(*(jnp.asarray(part, jnp.float32) for part in given), norm=norm), np.float64)
    compared = 0
    for row, (offset, normal, asked, radius, low, high) in enumerate(zip(*given, strict=True)):
        step, best = steps[row], best_by_solver(offset, normal, asked, radius, low, high, norm)
        assert (step >= low - 1e-5).all() and (step <= high + 1e-5).all() and np.linalg.norm(step) <= radius + 1e-5
        if np.isfinite(best):
            assert normal @ step <= asked + 1e-4
            assert np.linalg.norm(offset + step, {"l2": 2, "l1": 1, "linf": np.inf}[norm]) <= best + 0.02
            compared += 1
    assert compared >= 9


def test_a_step_of_l0_moves_as_few_features_as_any_choice_could():
    given = problems(12, 5)
    given = (*given[:3], np.full(12, 1e3), *given[4:])
    steps = np.asarray(step_of(*(jnp.asarray(part, jnp.float32) for part in given), norm="l0"), np.float64)
    for row, (offset, normal, asked, _, low, high) in enumerate(zip(*given, strict=True)):
        reach = np.where(normal > 0, low, high)  # as far beyond the plane as each feature comes
        chosen = itertools.chain.from_iterable(itertools.combinations(range(5), size) for size in range(6))
        fewest = next((len(some) for some in chosen if normal @ np.where(np.isin(range(5), some), reach, -offset) <= asked), None)
        if fewest is not None:
            assert normal @ steps[row] <= asked + 1e-4 and np.count_nonzero(np.abs(offset + steps[row]) > 1e-6) == fewest


def test_what_is_out_of_reach_is_gone_towards():
    normal, ones = jnp.array([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]]), jnp.ones((3, 2))
    for norm in NORMS:
        step = step_of(0 * ones, normal, jnp.full(3, -100.0), jnp.array([0.5, 9.0, 0.5]), -ones, ones, norm=norm)
        np.testing.assert_allclose(step, [[-0.3, -0.4], [-1, -1], [0, 0]], atol=1e-4)


WEIGHTS = RANDOM.randn(10)
IMAGES = RANDOM.uniform(0.2, 0.8, (6, 10))


def linear(images):
    side = (images - 0.5) @ jnp.asarray(WEIGHTS, jnp.float32)
    return jnp.stack([side, 0 * side], axis=1)


def distance_to_the_plane(image, norm):
    """Of the linear network in the box, in float64."""
    side = (image - 0.5) @ WEIGHTS
    steep, left = np.abs(WEIGHTS), abs(side)
    room = np.where(WEIGHTS * side > 0, image, 1 - image)
    if norm == "l0":
        return 1 + np.searchsorted(np.cumsum(np.sort(steep * room)[::-1]), left)
    if norm == "l1":
        total = 0.0
        for feature in np.argsort(-steep):
            taken = min(room[feature], left / steep[feature])
            total, left = total + taken, left - taken * steep[feature]
        return total
    low, high = 0.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        moved = np.minimum(middle * (steep if norm == "l2" else 1), room)
        low, high = (middle, high) if steep @ moved < left else (low, middle)
    return np.linalg.norm(moved, {"l2": 2, "linf": np.inf}[norm])


@pytest.mark.parametrize("norm", NORMS)
def test_it_finds_the_nearest_point_of_a_linear_network(norm):
    images = jnp.asarray(IMAGES, jnp.float32)
    attack = jax.jit(functools.partial(brendel_bethge, linear, None, norm=norm, num_steps=60))
    result = attack(images, jnp.argmax(linear(images), axis=1))
    assert result.found.all() and result.loss.shape == (60, 6)
    expected = [distance_to_the_plane(image, norm) for image in IMAGES]
    np.testing.assert_allclose(per_example_norm(result.images - images, norm), expected, rtol=5e-3)


def test_it_begins_where_it_is_told_to():
    """A step too short to matter: the point is the one that the search finds between image and start."""
    images, start = jnp.full((1, 2), 0.75), jnp.array([[0.0, 0.75]])
    network = lambda points: jnp.stack([points[:, 0] - 0.25, 0 * points[:, 0]], axis=1)  # noqa: E731
    result = brendel_bethge(network, None, images, jnp.array([0]), starting_points=start, num_steps=1, radius=1e-6)
    np.testing.assert_allclose(result.images, [[0.25, 0.75]], atol=1e-3)


@pytest.mark.parametrize(("name", "settings"), [
    ("norm", {"norm": "rms"}), ("bounds", {"bounds": Bounds(-np.inf, np.inf)}), ("num_steps", {"num_steps": 0}),
    ("radius", {"radius": 0.0}), ("momentum", {"momentum": 1.0}), ("overshoot", {"overshoot": 2.0}),
    ("num_decays", {"num_decays": -1}), ("starting_points", {"starting_points": jnp.zeros((1, 3))}),
])  # fmt: skip
def test_what_cannot_be_is_refused(name, settings):
    with pytest.raises(SettingError) as error:
        brendel_bethge(linear, None, jnp.asarray(IMAGES, jnp.float32), jnp.zeros(6, int), **settings)
    assert error.value.name == name
