"""On a linear network in the box the margin along a way is the distance of the boundary, known by other means, in every norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bap_jax.budgets import ball_way, pgd_search
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.types import Bounds

B, D, BISECTIONS = 8, 12, 6
STEP = 512 ** (1 / 2**BISECTIONS)  # the factor to which six halvings know a margin


def network(seed, bounds=Bounds()):
    """Weights [D, 2], images on and between the walls, and the class of each."""
    weights, images = np.random.RandomState(seed).randn(D, 2), np.random.RandomState(seed + 1).rand(B, D)
    images[:, :4] = np.random.RandomState(seed + 2).randint(0, 2, (B, 4))
    images = bounds.lower + (bounds.upper - bounds.lower) * images
    return weights, images, np.argmax(images @ weights, axis=1)


def distance(image, slope, gap, norm, bounds):
    """The least norm of a step inside the box over which a function of this slope rises by the gap; infinite if there is none."""
    room, steep = np.where(slope > 0, bounds.upper - image, image - bounds.lower), np.abs(slope)
    if steep @ room < gap:
        return np.inf
    if norm == "l1":
        order = np.argsort(-steep)
        risen = np.cumsum(steep[order] * room[order])
        last = int(np.searchsorted(risen, gap))
        before = risen[last - 1] if last else 0.0
        return room[order][:last].sum() + (gap - before) / steep[order][last]
    moved = (lambda t: np.minimum(t, room)) if norm == "linf" else (lambda t: np.minimum(t * steep, room))
    low, high = 0.0, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if steep @ moved(middle) >= gap else (middle, high)
    size = {"linf": np.max, "l2": np.linalg.norm, "rms": lambda x: np.linalg.norm(x) / np.sqrt(D)}[norm]
    return size(moved(high))


@functools.cache
def searching(norm, widest, bounds):
    """The search on a linear network, compiled once: (weights, images, labels) -> what it found."""
    search = pgd_search(norm=norm, num_bisections=BISECTIONS, bounds=bounds)

    def of(weights, images, labels):
        return search(lambda x: 0.1 * x @ weights, None, images, labels, jnp.float32(widest))  # a softmax that does not saturate

    return jax.jit(of)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([Bounds(), Bounds(-1.0, 1.0)]), st.sampled_from(["linf", "l2", "l1", "rms"]))
def test_the_margin_of_a_linear_network_is_its_distance_in_the_box(seed, bounds, norm):
    weights, images, labels = network(seed, bounds)
    widest = {"linf": 2.0, "l2": 16.0, "l1": 32.0, "rms": 4.0}[norm]
    reached = widest / STEP if norm in ("linf", "l1") else widest / 8  # in L2 walls take part of the way's length
    searched = searching(norm, widest, bounds)(weights.astype("f"), images.astype("f"), labels)
    found = per_example_norm(searched.perturbation, norm)
    for row in range(B):
        slope = weights[:, 1 - labels[row]] - weights[:, labels[row]]
        true = distance(images[row], slope, -images[row] @ slope, norm, bounds)
        if true < widest / 512:
            continue
        assert bool(searched.found[row]) or true > 0.99 * reached, (norm, true)
        if searched.found[row]:
            assert true * (1 - 1e-3) <= found[row] <= true * STEP * (1 + 1e-3), (norm, true, found[row])


def test_on_the_ray_the_margin_is_that_of_the_feature_farthest_from_its_wall():
    """The two ways through a box that is hardly met: the ray's crossing is 1.8 times as far as the boundary."""
    logits_fn = lambda x: jnp.stack([x[:, 0] + x[:, 1], jnp.full(len(x), 0.9)], -1)  # noqa: E731
    images, labels = jnp.array([[0.9, 0.1]]), jnp.array([0])
    far = {
        path: pgd_search(path=path, num_bisections=12)(logits_fn, None, images, labels, jnp.float32(1.0))
        for path in ("ball", "ray")
    }
    size = {path: float(per_example_norm(searched.perturbation, "linf")[0]) for path, searched in far.items()}
    assert size["ball"] == pytest.approx(0.05, rel=2e-3) and size["ray"] == pytest.approx(0.09, rel=2e-3)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "rms"])
@pytest.mark.parametrize("num_steps", [1, 2])
def test_every_point_is_in_the_ball_of_its_radius_and_in_the_box(norm, num_steps):
    weights, images, labels = network(3)
    images = jnp.asarray(images, jnp.float32)
    logits_fn = lambda x: jnp.tanh(x) @ jnp.asarray(weights, jnp.float32)  # noqa: E731
    bounds, widest = Bounds(jnp.zeros(D), jnp.ones(D)), jnp.float32(1.5)  # sides of a feature each
    way = jax.jit(lambda f: ball_way(logits_fn, images, labels, widest, norm=norm, num_steps=num_steps, bounds=bounds)(f))
    for fraction in (0.0, 0.01, 0.3, 1.0):
        points = way(jnp.full(B, fraction))
        assert bool(jnp.all((points >= -1e-6) & (points <= 1 + 1e-6)))
        assert float(jnp.max(per_example_norm(points - images, norm))) <= fraction * 1.5 * (1 + 1e-5) + 1e-6
    np.testing.assert_array_equal(way(jnp.zeros(B)), images)


def test_a_grid_tries_equal_parts_of_the_radius_on_either_path():
    logits_fn = lambda x: jnp.stack([x[:, 0], jnp.full(len(x), 0.3)], -1)  # noqa: E731  class 0 above 0.3
    images, labels = jnp.array([[0.5]]), jnp.array([0])
    search = {path: pgd_search(path=path, grid=8) for path in ("ball", "ray")}
    found = {
        path: float(one(logits_fn, None, images, labels, jnp.float32(1.0)).perturbation[0, 0]) for path, one in search.items()
    }
    assert found["ball"] == -0.25 and found["ray"] == -0.25  # the second eighth of 1, the fourth of the 0.5 to the wall


def test_an_unknown_path_is_refused():
    with pytest.raises(SettingError, match="path = 'straight'"):
        pgd_search(path="straight")
