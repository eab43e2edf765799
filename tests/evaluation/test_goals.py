"""Targeted and top-k evaluation: on a network whose logits are the image's features, every radius is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation import evaluate_goal
from bap_jax.types import Batch

IMAGES = np.array([[0.8, 0.5, 0.3], [0.8, 0.5, 0.3], [0.1, 0.9, 0.2], [0.5, 0.5, 0.5]], np.float32)
LABELS = np.array([0, 2, 1, 0])
BATCH = Batch(IMAGES, LABELS, np.arange(4) + 7, np.array([1, 1, 1, 0]))  # the last is padding
EPSILONS = [0.1, 0.2, 0.3, 0.36, 0.45]


def predict(params, images):
    return params * images


def needed(labels, classes):
    """[N]: half of what the class lacks against the largest logit."""
    return np.array([(image.max() - image[c]) / 2 for image, c in zip(IMAGES[:3], classes, strict=True)])


@pytest.mark.parametrize(("attack", "rule"), [("pgd", "next"), ("apgd-ce", "least_likely"), ("pgd", "most_likely")])
def test_a_wanted_class_is_answered_from_its_distance_on(attack, rule):
    result = evaluate_goal(predict, jnp.float32(1), BATCH, attack, EPSILONS, 0, targets=rule, num_steps=20)
    wanted = {"next": [1, 0, 2], "least_likely": [2, 1, 0], "most_likely": [1, 0, 2]}[rule]
    np.testing.assert_array_equal(result.wanted, wanted)
    np.testing.assert_array_equal(result.positions, [7, 8, 9])
    expected = np.array(EPSILONS)[:, None] > needed(LABELS, wanted)
    np.testing.assert_array_equal(result.reached, expected)
    assert result.success == tuple(expected.mean(axis=1)) and result.num_examples == 3
    assert result.unattacked == pytest.approx(1 / 3 if 0 in np.array(wanted)[1:2] else 0)  # image 1 is answered 0 as it is
    np.testing.assert_array_equal(result.correct, [True, False, True])


def test_random_targets_depend_on_the_seed_and_the_position_alone():
    many = Batch(np.tile(IMAGES[:3], (20, 1)), np.tile(LABELS[:3], 20), np.arange(60), np.ones(60))
    run = lambda batches, seed: evaluate_goal(predict, jnp.float32(1), batches, "pgd", 0.1, seed, targets="random", num_steps=1)  # noqa: E731
    whole = run(many, 0).wanted
    halves = [jax.tree.map(lambda leaf, part=part: leaf[part], many) for part in (slice(0, 30), slice(30, 60))]
    np.testing.assert_array_equal(run(halves, 0).wanted, whole)
    assert np.any(run(many, 1).wanted != whole) and np.all(whole != many.labels)


def test_a_label_leaves_the_two_likeliest():
    result = evaluate_goal(predict, jnp.float32(1), BATCH, "pgd", EPSILONS, 0, top_k=2, num_steps=20)
    np.testing.assert_array_equal(result.reached[:, 0], np.array(EPSILONS) > 0.25)
    np.testing.assert_array_equal(result.reached[:, 2], np.array(EPSILONS) > 0.4)
    assert result.reached[:, 1].all() and result.unattacked == pytest.approx(1 / 3)  # the label 2 of image 1 is third as it is
    assert np.all(np.diff(result.success) >= 0)


@pytest.mark.parametrize(
    ("attack", "options", "named"),
    [
        ("square", {"top_k": 2}, "an attack that can be top_k: pgd, apgd-ce, apgd-dlr"),
        ("fab", {"targets": "next"}, "an attack that can be targeted: pgd"),
        ("pgd", {"targets": "next", "top_k": 2}, "top_k"),
        ("pgd", {"targets": "worst"}, "targets"),
        ("pdg", {"targets": "next"}, "attack"),
        ("pgd", {"top_k": 5}, "classes"),
    ],
)
def test_what_makes_no_sense_is_refused(attack, options, named):
    with pytest.raises(SettingError, match=named):
        evaluate_goal(predict, jnp.float32(1), BATCH, attack, 0.1, 0, **options)
