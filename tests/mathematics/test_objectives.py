"""Objectives against numpy and optax; their sign; their class counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import (
    cross_entropy,
    dlr,
    dlr_targeted,
    kl_divergence,
    margin,
    margin_loss,
    misclassified,
    probability_margin_loss,
    soft_cross_entropy,
    soft_margin_loss,
    successful,
    top_k_margin_loss,
)

LOGITS = jnp.asarray(np.random.RandomState(0).randn(6, 5) * 3, jnp.float32)
LABELS = jnp.array([0, 1, 2, 3, 4, 0])


def test_cross_entropies_are_optaxs():
    np.testing.assert_allclose(
        cross_entropy(LOGITS, LABELS), optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS), rtol=1e-5
    )
    targets = optax.smooth_labels(jax.nn.one_hot(LABELS, 5), 0.1)
    np.testing.assert_allclose(soft_cross_entropy(LOGITS, targets), optax.softmax_cross_entropy(LOGITS, targets), rtol=1e-5)


def test_margin_and_ratios_are_their_definitions():
    logits = np.asarray(LOGITS)
    for row, label, got, ratio, aimed in zip(
        logits,
        np.asarray(LABELS),
        margin(LOGITS, LABELS),
        dlr(LOGITS, LABELS),
        dlr_targeted(LOGITS, LABELS, (LABELS + 1) % 5),
        strict=True,
    ):
        lead = row[label] - np.delete(row, label).max()
        down = np.sort(row)[::-1]
        np.testing.assert_allclose(got, lead, rtol=1e-5)
        np.testing.assert_allclose(ratio, -lead / (down[0] - down[2]), rtol=1e-5)
        wanted = row[(label + 1) % 5]
        np.testing.assert_allclose(aimed, -(row[label] - wanted) / (down[0] - (down[2] + down[3]) / 2), rtol=1e-5)


def test_the_soft_margin_is_its_definition_and_never_below_the_margin():
    logits = np.asarray(LOGITS, np.float64)
    rivals = [np.log(np.exp(np.delete(row, label)).sum()) for row, label in zip(logits, np.asarray(LABELS), strict=True)]
    np.testing.assert_allclose(soft_margin_loss(LOGITS, LABELS), rivals - logits[range(6), LABELS], rtol=1e-5)
    assert bool(jnp.all(soft_margin_loss(LOGITS, LABELS) >= margin_loss(LOGITS, LABELS)))
    np.testing.assert_allclose(soft_margin_loss(LOGITS[:, :2], LABELS % 2), margin_loss(LOGITS[:, :2], LABELS % 2), rtol=1e-5)


def test_the_divergence_is_its_definition():
    others = LOGITS[::-1] / 2
    p, q = (np.asarray(jax.nn.softmax(logits), np.float64) for logits in (LOGITS, others))
    np.testing.assert_allclose(kl_divergence(LOGITS, others), (p * np.log(p / q)).sum(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kl_divergence(LOGITS, LOGITS + 3), 0, atol=1e-6)
    with pytest.raises(SettingError, match="others"):
        kl_divergence(LOGITS, LOGITS[:, :3])


def test_the_ratio_ignores_shift_and_scale():
    np.testing.assert_allclose(dlr(LOGITS * 7 - 3, LABELS), dlr(LOGITS, LABELS), rtol=1e-4)


@pytest.mark.parametrize("objective", [cross_entropy, margin_loss, soft_margin_loss, dlr])
def test_every_objective_rises_when_the_label_is_believed_less(objective):
    less = LOGITS - 0.1 * jax.nn.one_hot(LABELS, 5)
    rose = objective(less, LABELS) > objective(LOGITS, LABELS)
    third = jnp.sum(jnp.take_along_axis(LOGITS, LABELS[:, None], axis=1) <= LOGITS, axis=1) >= 3
    np.testing.assert_array_equal(rose | third, True)  # from the third place on the ratio is 1 or moves with the others
    assert jnp.sum(~third) >= 3


def test_the_margin_is_positive_exactly_where_the_label_wins():
    np.testing.assert_array_equal(margin(LOGITS, LABELS) > 0, ~misclassified(LOGITS, LABELS))


@pytest.mark.parametrize("objective", [cross_entropy, margin, dlr])
def test_gradients_are_finite_at_equal_and_at_extreme_logits(objective):
    logits = jnp.array([[0.0, 0.0, 0.0], [1e4, 0.0, -1e4]])
    assert jnp.all(jnp.isfinite(jax.grad(lambda z: objective(z, jnp.array([0, 2])).sum())(logits)))


@pytest.mark.parametrize("call, match", [
    (lambda: margin(jnp.ones((2, 1)), jnp.zeros(2, int)), "at least 2 classes"),
    (lambda: dlr(jnp.ones((2, 2)), jnp.zeros(2, int)), "at least 3 classes"),
    (lambda: dlr_targeted(jnp.ones((2, 3)), jnp.zeros(2, int), jnp.ones(2, int)), "at least 4 classes"),
    (lambda: cross_entropy(jnp.ones((2, 3)), jnp.zeros(3, int)), "integers of shape"),
    (lambda: cross_entropy(jnp.ones((2, 3)), jnp.zeros(2)), "integers of shape"),
    (lambda: cross_entropy(jnp.ones(3), jnp.zeros(3, int)), r"shape \[B, K\]"),
    (lambda: soft_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 4))), "one distribution per row"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, match):
    with pytest.raises(SettingError, match=match):
        call()


def test_the_margin_of_probabilities():
    logits = jax.random.normal(jax.random.key(0), (50, 7)) * 3
    labels = jnp.arange(50) % 7
    p = np.array(jax.nn.softmax(logits))
    own = p[np.arange(50), labels]
    p[np.arange(50), labels] = -1
    np.testing.assert_allclose(probability_margin_loss(logits, labels), p.max(axis=1) - own, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_label_among_the_k_largest(k):
    logits = jnp.round(jax.random.normal(jax.random.key(0), (200, 7)) * 2)  # with ties, of which the first counts as the larger
    labels = jnp.arange(200) % 7
    order = np.argsort(-np.asarray(logits), axis=1, kind="stable")
    out = ~np.any(order[:, :k] == np.asarray(labels)[:, None], axis=1)
    np.testing.assert_array_equal(successful(logits, labels, top_k=k), out)
    loss = np.asarray(top_k_margin_loss(logits, labels, k))
    assert np.all(loss[out] >= 0) and np.all(loss[~out] <= 0)
    assert not successful(logits.at[:, 0].set(jnp.nan), labels, top_k=k).any()
    with pytest.raises(SettingError, match=f"at least {8} classes for the 7 largest"):
        successful(logits, labels, top_k=7)
