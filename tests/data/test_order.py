"""The order of examples: a pure function of seed and step that visits every example once an epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bap_jax.data import batch_indices, epoch_permutation, steps_per_epoch
from bap_jax.errors import SettingError


def test_permutation_is_one_and_differs_between_epochs_and_seeds():
    orders = [epoch_permutation(seed, epoch, 50) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert order.dtype == np.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_permutation_is_frozen_across_versions():
    # numpy guarantees RandomState's stream: np.random.RandomState([3, 2]).permutation(6), numpy 2.4.6
    np.testing.assert_array_equal(epoch_permutation(3, 2, 6), [3, 0, 1, 4, 2, 5])


def test_permutation_cannot_be_changed_through_the_cache():
    with pytest.raises(ValueError, match="read-only"):
        epoch_permutation(0, 0, 5)[0] = 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60), data=st.data())
def test_an_epoch_with_its_remainder_visits_every_example_once(seed, count, data):
    size = data.draw(st.integers(1, count))
    steps = steps_per_epoch(count, size, drop_remainder=False)
    for epoch in range(2):
        chosen = [batch_indices(seed, epoch * steps + step, size, count, drop_remainder=False) for step in range(steps)]
        assert all(batch.shape == (size,) for batch in chosen)
        flat = np.concatenate(chosen)
        np.testing.assert_array_equal(np.sort(flat[flat < count]), np.arange(count))
        assert np.all(flat[count:] == count)  # the padding stands at the end


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 60), data=st.data())
def test_an_epoch_without_its_remainder_repeats_nothing(count, data):
    size = data.draw(st.integers(1, count))
    steps = steps_per_epoch(count, size)
    flat = np.concatenate([batch_indices(5, step, size, count) for step in range(steps)])
    assert len(np.unique(flat)) == len(flat) == steps * size > count - size
    assert flat.max() < count
    np.testing.assert_array_equal(flat, epoch_permutation(5, 0, count)[: len(flat)])


@pytest.mark.parametrize(("size", "message"), [(0, "at least 1"), (-3, "at least 1"), (11, "at most 10, the number of training")])
def test_batch_size_that_does_not_fit(size, message):
    with pytest.raises(SettingError, match=f"batch_size = {size}: expected .*{message}"):
        steps_per_epoch(10, size)
    with pytest.raises(SettingError, match="batch_size"):
        batch_indices(0, 0, size, 10)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed):
    with pytest.raises(SettingError, match="seed"):
        epoch_permutation(seed, 0, 10)
