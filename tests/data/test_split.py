"""The validation split: disjoint, complete, fixed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bap_jax.data import validation_rows
from bap_jax.errors import DataError, SettingError


@given(count=st.integers(2, 500), fraction=st.floats(0.01, 0.5), shuffled=st.booleans())
def test_parts_are_disjoint_and_complete(count, fraction, shuffled):
    training, validation = validation_rows(count, fraction, shuffled=shuffled)
    np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(count))
    assert len(validation) == max(1, round(count * fraction))


def test_shuffled_data_gives_its_last_tenth():
    training, validation = validation_rows(60_000, 0.1)
    assert (training[-1], validation[0], validation[-1]) == (53_999, 54_000, 59_999)


def test_sorted_data_gives_every_class():
    labels = np.repeat(np.arange(10), 100)
    _, validation = validation_rows(1000, 0.1, shuffled=False)
    np.testing.assert_array_equal(np.bincount(labels[validation]), np.full(10, 10))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2])
def test_fraction_out_of_range(fraction):
    with pytest.raises(SettingError, match="validation_fraction"):
        validation_rows(100, fraction)


def test_too_few_examples():
    with pytest.raises(DataError, match="1 training examples are too few"):
        validation_rows(1, 0.1)
