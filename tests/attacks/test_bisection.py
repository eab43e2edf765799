"""Bisection ends at the boundary that lies on its way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.bisection import bisection
from bap_jax.errors import SettingError
from bap_jax.mathematics import misclassified, per_example_norm

_random = np.random.RandomState(3)
HIDDEN = jnp.asarray(_random.randn(12, 16), jnp.float32)
OUT = jnp.asarray(_random.randn(16, 4), jnp.float32)
IMAGES = jnp.asarray(_random.rand(30, 12), jnp.float32)
FAR = jnp.asarray(_random.rand(30, 12), jnp.float32)


def network(images):
    return jnp.tanh((images - 0.5) @ HIDDEN) @ OUT


LABELS = jnp.argmax(network(IMAGES), axis=1)
ADVERSARIAL = misclassified(network(FAR), LABELS)


def way(norm, share):
    """The points between, written out in numpy."""
    delta = np.asarray(FAR - IMAGES)
    largest = np.abs(delta).max(axis=1, keepdims=True)
    if norm == "l2":
        return share * delta
    if norm == "linf":
        return np.clip(delta, -share * largest, share * largest)
    if norm == "l1":
        return np.sign(delta) * np.maximum(np.abs(delta) - (1 - share) * largest, 0)
    ranks = np.argsort(np.argsort(-np.abs(delta), axis=1), axis=1)
    return np.where(ranks < np.floor(share * 12 + 1e-6), delta, 0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_it_ends_where_the_answer_changes_and_never_farther_than_it_began(norm):
    assert 10 <= ADVERSARIAL.sum() < 30
    result = jax.jit(lambda: bisection(network, None, IMAGES, LABELS, adversarial=FAR, norm=norm))()
    assert jnp.all(result.found | ~ADVERSARIAL)
    np.testing.assert_array_equal(misclassified(network(result.images), LABELS), result.found)
    sizes, before = (per_example_norm(points - IMAGES, norm) for points in (result.images, FAR))
    assert jnp.all(sizes <= before) and jnp.median(sizes[ADVERSARIAL] / before[ADVERSARIAL]) < 0.9
    # Where the answer changes once on a fine grid of the way, the result is that place.
    shares = np.arange(13) / 12 if norm == "l0" else np.linspace(0, 1, 401)
    wrong = np.stack([misclassified(network(IMAGES + way(norm, share)), LABELS) for share in shares])
    once = np.asarray(ADVERSARIAL) & (np.diff(wrong.astype(int), axis=0) != 0).sum(axis=0).__eq__(1)
    assert once.sum() >= 10
    first = np.argmax(wrong, axis=0)
    above, below = (
        per_example_norm(jnp.stack([way(norm, shares[i])[row] for row, i in enumerate(index)]), norm)
        for index in (first, np.maximum(first - 1, 0))
    )
    assert jnp.all((sizes <= above + 1e-5)[once]) and jnp.all((sizes >= below - 1e-5)[once])


def test_targeted_and_points_that_are_not_adversarial():
    targets = jnp.argmax(network(FAR), axis=1)
    result = bisection(network, None, IMAGES, targets, adversarial=FAR, norm="l2", targeted=True)
    np.testing.assert_array_equal(jnp.argmax(network(result.images), axis=1), targets)
    np.testing.assert_array_equal(result.images[targets == LABELS], IMAGES[targets == LABELS])
    same = bisection(network, None, IMAGES, LABELS, adversarial=IMAGES, norm="l1")
    assert not jnp.any(same.found)
    np.testing.assert_array_equal(same.images, IMAGES)


@pytest.mark.parametrize("change", [{"adversarial": FAR[:2]}, {"norm": "rms"}])
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError) as error:
        bisection(network, None, IMAGES, LABELS, **{"adversarial": FAR, **change})
    assert error.value.name == next(iter(change))
