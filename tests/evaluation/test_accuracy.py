"""Counts with weights, the worst case per example, and the interval's coverage."""

import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation import clean_accuracy, robust_accuracy, wilson_interval


def test_padding_counts_for_nothing():
    assert clean_accuracy([0, 1, 2, 9], [0, 1, 1, 9], [1, 1, 1, 0]) == pytest.approx(2 / 3)
    assert robust_accuracy([True, True, False], [[False, True, False]], [1, 1, 0]) == 0.5


def test_no_attack_leaves_the_clean_accuracy_and_an_example_wrong_already_stays_wrong():
    correct = np.array([True, False, True])
    assert robust_accuracy(correct, np.zeros((0, 3))) == pytest.approx(2 / 3)
    assert robust_accuracy(correct, np.zeros((2, 3))) == pytest.approx(2 / 3)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    random = np.random.RandomState(0)
    for truth in (0.02, 0.5, 0.9):
        hits = [low <= truth <= high for low, high in (wilson_interval(k / 80, 80) for k in random.binomial(80, truth, 2000))]
        assert 0.92 <= np.mean(hits) <= 0.99
    assert wilson_interval(0.0, 10)[0] == 0 and wilson_interval(1.0, 10)[1] == 1


@pytest.mark.parametrize("call", [
    lambda: clean_accuracy([1], [1], [0]),
    lambda: clean_accuracy([1, 2], [1, 2], [1]),
    lambda: robust_accuracy([True], [True]),
    lambda: robust_accuracy([True], [[True, False]]),
    lambda: wilson_interval(1.2, 10),
    lambda: wilson_interval(0.5, 0),
])  # fmt: skip
def test_what_cannot_be_is_refused(call):
    with pytest.raises(SettingError):
        call()
