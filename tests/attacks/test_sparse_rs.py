"""Sparse-RS against the exact answer of a linear network and an exhaustive search, and what its docstring promises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.pgd0 import by_pixel
from bap_jax.attacks.sparse_rs import _divisor, sparse_rs
from bap_jax.errors import SettingError
from bap_jax.mathematics import margin, margin_loss, misclassified
from bap_jax.types import Bounds

attack = jax.jit(sparse_rs, static_argnames=("logits_fn", "bounds", "num_queries", "alpha", "targeted"))
_random = np.random.RandomState(5)
LINE = jnp.asarray(_random.randn(24), jnp.float32)
W1, W2 = jnp.asarray(_random.randn(24, 12) * 0.5, jnp.float32), jnp.asarray(_random.randn(12, 4), jnp.float32)
IMAGES = jnp.asarray(_random.rand(8, 4, 2, 3), jnp.float32)
KEYS = jax.random.split(jax.random.key(1), 8)


def linear(images):
    value = images.reshape(len(images), -1) @ LINE + 5.0
    return jnp.stack([value, -value], axis=1)


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ W1) @ W2


LABELS = jnp.argmax(network(IMAGES), axis=1)


def pixels_needed(images, labels, bounds):
    slope = jnp.where(labels[:, None] == 0, -2, 2) * LINE[None]
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
    possible = needed < 8
    assert len(set(needed[possible].tolist())) > 1
    for count, least, most in ((needed, jnp.sum(possible) // 2, 8), (jnp.minimum(needed - 1, 7), 0, 0)):
        result = attack(linear, KEYS, images, labels, num_pixels=count, bounds=bounds, num_queries=2000)
        # It need not get there: a pixel of the best ones that has another colour may be worse to exchange than to keep.
        assert least <= jnp.sum(result.found) <= most
        np.testing.assert_array_equal(misclassified(linear(result.images), labels), result.found)
        assert jnp.all(changed_pixels(result, images) <= count)
        moved = result.images != images
        corner = (result.images == bounds.lower) | (result.images == bounds.upper)
        assert jnp.all(corner | ~moved)


def test_no_exchange_of_two_pixels_improves_what_it_ends_with():
    """The two changed pixels against all points that one query could move to. A bias keeps the search from succeeding early."""

    def never(images):
        return network(images).at[:, 0].add(100.0)

    labels = jnp.zeros(8, int)
    result = attack(never, KEYS, IMAGES, labels, num_pixels=2, num_queries=2000)
    np.testing.assert_array_equal(result.found, False)
    np.testing.assert_allclose(result.loss[-1], margin_loss(never(result.images), labels), atol=1e-4)
    assert jnp.all(result.loss[1:] >= result.loss[:-1]) and jnp.all(result.loss[-1] > result.loss[0])
    original, reached = (np.asarray(by_pixel(images)) for images in (IMAGES, result.images))
    for row in range(8):
        changed = np.flatnonzero((original[row] != reached[row]).any(axis=1))
        assert len(changed) == 2
        others = np.setdiff1d(np.arange(8), changed)
        moves = list(itertools.product(changed, others, itertools.product((0.0, 1.0), repeat=3)))
        points = np.repeat(reached[row][None], len(moves), axis=0)
        for point, (back, fresh, colour) in zip(points, moves, strict=True):
            point[back], point[fresh] = original[row, back], colour
        losses = margin_loss(never(jnp.asarray(points.reshape(-1, 4, 2, 3))), jnp.zeros(len(moves), int))
        assert losses.max() <= result.loss[-1, row] + 1e-5


def test_the_schedule_of_the_authors():
    """p_selection of fra31/sparse-rs for L0, written out for 10,000 queries; with 1,000 a query counts ten times."""

    def divisor(t):
        for limit, value in ((50, 2), (200, 4), (500, 5), (1000, 6), (2000, 8), (4000, 10), (6000, 12), (8000, 15)):
            if t <= limit:
                return value
        return 20

    queries = jnp.arange(1, 10000)
    np.testing.assert_array_equal(_divisor(queries, 10000), [divisor(t) for t in range(1, 10000)])
    np.testing.assert_array_equal(_divisor(jnp.arange(1, 1000), 1000), [divisor(10 * t) for t in range(1, 1000)])
    np.testing.assert_array_equal(_divisor(jnp.arange(1, 7000), 7000), [divisor(t * 10000 // 7000) for t in range(1, 7000)])


def test_rows_do_not_influence_each_other_and_budgets_are_per_row():
    counts = jnp.array([0, 1, 2, 3, 4, 5, 7, 99])
    wrong = LABELS.at[4].set((LABELS[4] + 1) % 4)
    whole = attack(network, KEYS, IMAGES, wrong, num_pixels=counts, num_queries=40)
    assert jnp.all(changed_pixels(whole, IMAGES) <= counts) and whole.loss.shape == (40, 8)
    for row in (0, 4):  # no pixels; misclassified as it is
        np.testing.assert_array_equal(whole.images[row], IMAGES[row])
    assert not whole.found[0] and whole.found[4] and 0 < jnp.sum(whole.found) < 8
    padded = attack(network, KEYS, IMAGES.at[3:].set(0), wrong.at[3:].set(0), num_pixels=counts, num_queries=40)
    np.testing.assert_array_equal(padded.images[:3], whole.images[:3])
    np.testing.assert_allclose(padded.loss[:, :3], whole.loss[:, :3], atol=1e-5)
    alone = attack(network, KEYS[2:3], IMAGES[2:3], wrong[2:3], num_pixels=2, num_queries=40)
    np.testing.assert_array_equal(alone.images[0], whole.images[2])


def test_the_search_ends_when_all_are_found():
    calls = []

    def counted(images):
        jax.debug.callback(lambda: calls.append(1))
        return linear(images)

    labels = jnp.argmax(linear(IMAGES), axis=1)
    result = jax.jit(lambda: sparse_rs(counted, KEYS, IMAGES, labels, num_pixels=7, num_queries=3000, bounds=Bounds(-9.0, 9.0)))()
    jax.effects_barrier()
    np.testing.assert_array_equal(result.found, True)
    assert len(calls) < 200
    np.testing.assert_array_equal(result.loss[-1], result.loss[len(calls)])


def test_a_single_exchanged_pixel_gets_another_colour_than_its_own():
    """On black images a pixel drawn black would be no change: with one pixel to change, every query changes one."""
    changes = []

    def watch(images):
        jax.debug.callback(lambda x: changes.append(np.asarray(x)), jnp.sum(jnp.any(images != 0, axis=(1, 2, 3))))
        return jnp.stack([jnp.ones(len(images)), jnp.zeros(len(images))], axis=1) + 0 * images[:, 0, 0, :1]

    zeros = jnp.zeros((8, 4, 2, 3))
    sparse_rs(watch, KEYS, zeros, jnp.zeros(8, int), num_pixels=1, num_queries=20)
    jax.effects_barrier()
    counts = sorted(int(change) for change in changes)
    assert counts[0] == 0 and sum(count == 8 for count in counts) >= 19  # the images themselves; all queries but the first


def test_targeted_reaches_the_target():
    targets = (LABELS + 1) % 4
    result = attack(network, KEYS, IMAGES, targets, num_pixels=6, num_queries=300, targeted=True)
    np.testing.assert_array_equal(result.found, jnp.argmax(network(result.images), axis=1) == targets)
    assert jnp.sum(result.found) >= 4


@pytest.mark.parametrize("change, name", [
    ({"num_pixels": -1}, "num_pixels"),
    ({"num_queries": 0}, "num_queries"),
    ({"alpha": 0.0}, "alpha"),
    ({"bounds": Bounds(0.0, float("inf"))}, "bounds"),
])  # fmt: skip
def test_what_cannot_be_is_refused(change, name):
    with pytest.raises(SettingError) as error:
        sparse_rs(network, KEYS, IMAGES, LABELS, **{"num_pixels": 1, **change})
    assert error.value.name == name
