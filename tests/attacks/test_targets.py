"""Targets, their order, and labels that have to leave the k likeliest classes: on networks whose answers are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import apgd, apgd_targeted, choose_targets, pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics import top_k_margin_loss
from bap_jax.types import Bounds

KEYS = jax.random.split(jax.random.key(0), 400)


def test_targets_are_wrong_classes_by_their_rule():
    logits = jnp.tile(jnp.array([[0.0, 3.0, 1.0, 2.0]]), (400, 1))
    labels = jnp.arange(400) % 4
    for rule, expected in (("most_likely", [1, 3, 1, 1]), ("least_likely", [2, 0, 0, 0]), ("next", [1, 2, 3, 0])):
        np.testing.assert_array_equal(choose_targets(logits, labels, rule)[:4], expected)
    drawn = np.asarray(choose_targets(logits, labels, "random", KEYS))
    assert np.all(drawn != labels)
    for label in range(4):  # 33 of 100 expected, its standard deviation 4.7
        counts = np.bincount(drawn[label::4], minlength=4)
        assert counts[label] == 0 and np.all(np.delete(counts, label) > 12)
    with pytest.raises(SettingError, match="keys"):
        choose_targets(logits, labels, "random")
    with pytest.raises(SettingError, match="targets"):
        choose_targets(logits, labels, "worst")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_malt_tries_the_nearest_class_first(norm):
    """Class 1 has the larger logit, −.5, but is .5 away along one feature; class 2 has −1, and is .25 away along the other."""
    weights, offset = jnp.array([[0.0, 1, 0, 0, 0], [0.0, 0, 4, 0, 0]]), jnp.array([[0.0, -0.5, -1, -9, -9]])
    images, labels = jnp.zeros((1, 2)), jnp.array([0])
    for ranking, epsilon, found in (("logits", 0.26, False), ("malt", 0.26, True), ("malt", 0.24, False), ("logits", 0.52, True)):
        result = apgd_targeted(
            lambda x: x @ weights + offset, KEYS[:1], images, labels, epsilon=epsilon, norm=norm, num_steps=10,
            bounds=Bounds(-1.0, 1.0), num_targets=1, ranking=ranking, start=images,
        )  # fmt: skip
        assert bool(result.found[0]) == found


def test_malt_needs_a_network_that_stays_the_same():
    for options in ({"ranking": "size"}, {"ranking": "malt", "random_logits": True}):
        with pytest.raises(SettingError, match="ranking"):
            apgd_targeted(lambda x: x, KEYS[:1], jnp.zeros((1, 5)), jnp.array([0]), epsilon=0.1, **options)


@pytest.mark.parametrize(
    "attack", [functools.partial(pgd, num_steps=30, keep="adversarial"), functools.partial(apgd, num_steps=30)]
)
def test_a_label_leaves_the_two_likeliest_at_its_own_distance(attack):
    """Logits that are the image's features: the label 0 is first until ε = .2, and among two until .25."""
    image, labels = jnp.array([[0.9, 0.5, 0.4]]), jnp.array([0])
    for top_k, radius in ((1, 0.2), (2, 0.25)):
        objective = functools.partial(top_k_margin_loss, top_k=top_k)
        for factor in (1.02, 0.98):
            settings = {"epsilon": factor * radius, "objective": objective, "top_k": top_k}
            assert bool(attack(lambda x: x, KEYS[:1], image, labels, **settings).found[0]) == (factor > 1)
    for wrong in ({"top_k": 0}, {"top_k": 3}, {"top_k": 2, "targeted": True}):
        with pytest.raises(SettingError, match=r"top_k|classes"):
            attack(lambda x: x, KEYS[:1], image, labels, epsilon=0.1, **wrong)
