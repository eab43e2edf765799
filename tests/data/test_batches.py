"""Batches: exact values, padding, resumable order, and the stream equal to memory."""

import itertools
import threading

import numpy as np
import pytest

from bap_jax.data import Dataset, batch_indices, evaluation_batches, make_batch, stream_batches, train_batches
from bap_jax.errors import SettingError
from bap_jax.types import Bounds


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    stored = np.random.RandomState(0).randint(0, 256, (23, 3, 2, 1)).astype(np.uint8)
    return Dataset(stored, (np.arange(23) % 5).astype(np.int32), 5)


def assert_same(one, two):
    for left, right in zip(one, two, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_values_types_and_padding(dataset):
    batch = make_batch(dataset, np.array([4, 23, 22]), 5)
    assert [leaf.dtype for leaf in batch] == [np.float32, np.int32, np.int32, np.float32]
    np.testing.assert_array_equal(batch.index, [4, 23, 22, 23, 23])
    np.testing.assert_array_equal(batch.weight, [1, 0, 1, 0, 0])
    np.testing.assert_array_equal(batch.labels, [4, 0, 2, 0, 0])
    np.testing.assert_array_equal(batch.images[[0, 2]], dataset.images[[4, 22]].astype(np.float32) / np.float32(255))
    assert not batch.images[[1, 3, 4]].any()


def test_all_256_values_stay_inside_the_bounds_and_distinct():
    ramp = Dataset(np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1), np.zeros(256, np.int32), 2)
    values = np.asarray(make_batch(ramp, np.arange(256)).images).ravel()
    assert (values[0], values[-1]) == (0.0, 1.0)
    assert np.all(np.diff(values) > 0)
    np.testing.assert_array_equal(np.round(values * 255), np.arange(256))


def test_padding_lies_inside_other_bounds():
    shifted = Dataset(np.zeros((2, 2, 2, 1), np.float32), np.zeros(2, np.int32), 2, Bounds(-1.0, 1.0))
    assert np.all(make_batch(shifted, np.array([0]), 2).images[1] == -1.0)


def test_training_follows_the_order(dataset):
    for step, batch in enumerate(itertools.islice(train_batches(dataset, seed=3, batch_size=5), 9)):
        assert_same(batch, make_batch(dataset, batch_indices(3, step, 5, 23)))


@pytest.mark.parametrize("start", [1, 4, 7])
@pytest.mark.parametrize("drop_remainder", [True, False])
def test_a_resume_in_the_middle_sees_what_the_whole_run_saw(dataset, start, drop_remainder):
    settings = {"seed": 1, "batch_size": 6, "stop_step": 10, "drop_remainder": drop_remainder}
    whole = list(train_batches(dataset, **settings))
    rest = list(train_batches(dataset, start_step=start, **settings))
    assert (len(whole), len(rest)) == (10, 10 - start)
    for one, two in zip(whole[start:], rest, strict=True):
        assert_same(one, two)


@pytest.mark.parametrize("start", [0, 5])
def test_the_stream_equals_memory(dataset, start):
    settings = {"seed": 2, "batch_size": 4, "start_step": start, "stop_step": 13}
    streamed = list(stream_batches(dataset, threads=3, buffer=4, **settings))
    in_memory = list(train_batches(dataset, **settings))
    assert len(streamed) == len(in_memory) == 13 - start
    for one, two in zip(streamed, in_memory, strict=True):
        assert_same(one, two)


def test_an_endless_stream_can_be_left(dataset):
    batches = stream_batches(dataset, seed=0, batch_size=4, threads=1)
    assert len(list(itertools.islice(batches, 20))) == 20


def test_hosts_make_their_own_rows(dataset):
    settings = {"seed": 0, "batch_size": 8, "stop_step": 3}
    halves = [train_batches(dataset, rows=slice(4 * host, 4 * host + 4), **settings) for host in range(2)]
    for whole, first, second in zip(train_batches(dataset, **settings), *halves, strict=True):
        assert_same(whole, [np.concatenate(pair) for pair in zip(first, second, strict=True)])


def test_evaluation_sees_every_example_once_in_order(dataset):
    batches = list(evaluation_batches(dataset, 10))
    assert [int(batch.weight.sum()) for batch in batches] == [10, 10, 3]
    assert all(batch.images.shape == (10, 3, 2, 1) for batch in batches)
    index = np.concatenate([batch.index for batch in batches])
    np.testing.assert_array_equal(index, [*range(23), *[23] * 7])


@pytest.mark.parametrize(("limit", "weights"), [(12, [10, 2]), (10, [10]), (1, [1]), (99, [10, 10, 3])])
def test_evaluation_limit(dataset, limit, weights):
    assert [int(batch.weight.sum()) for batch in evaluation_batches(dataset, 10, limit=limit)] == weights


def test_evaluation_rows_of_a_host_still_come_in_order(dataset):
    index = np.concatenate([batch.index for batch in evaluation_batches(dataset, 8, rows=slice(4, 8))])
    np.testing.assert_array_equal(index, [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23])


class Failing(Dataset):
    """A data set whose example 5 cannot be read."""

    def read(self, indices):
        if 5 in indices:
            raise OSError("the disk is gone")
        return super().read(indices)


def test_an_error_surfaces_at_its_own_batch():
    failing = Failing(np.zeros((9, 2, 2, 1), np.uint8), np.zeros(9, np.int32), 2)
    batches = evaluation_batches(failing, 2, prefetch=3)
    np.testing.assert_array_equal(next(batches).index, [0, 1])
    np.testing.assert_array_equal(next(batches).index, [2, 3])
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


class Counting(Dataset):
    """A data set that tells when its read number ``wanted`` begins."""

    reads = 0
    reached = threading.Event()

    def read(self, indices):
        Counting.reads += 1
        if Counting.reads == 3:
            Counting.reached.set()
        return super().read(indices)


def test_batches_are_made_ahead_and_no_further():
    counting = Counting(np.zeros((40, 1, 1, 1), np.uint8), np.zeros(40, np.int32), 2)
    batches = train_batches(counting, seed=0, batch_size=2, prefetch=2)
    next(batches)
    assert Counting.reached.wait(30)  # without anybody asking for it
    batches.close()
    assert Counting.reads == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("make", [train_batches, stream_batches])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("batch_size", {"batch_size": 24}),
        ("batch_size", {"batch_size": 0}),
        ("seed", {"seed": -1}),
        ("start_step", {"start_step": -1}),
    ],
)
def test_errors_come_before_any_work(dataset, make, name, settings):
    with pytest.raises(SettingError, match=f"^{name} = "):
        make(dataset, **{"seed": 0, "batch_size": 4, **settings})


def test_errors_of_make_batch_and_evaluation(dataset):
    with pytest.raises(SettingError, match="batch_size = 1: expected at least 2"):
        make_batch(dataset, np.array([0, 1]), 1)
    for index in (-1, 24):
        with pytest.raises(SettingError, match="indices"):
            make_batch(dataset, np.array([index]))
    with pytest.raises(SettingError, match="batch_size"):
        evaluation_batches(dataset, 0)
    with pytest.raises(SettingError, match="limit"):
        evaluation_batches(dataset, 4, limit=0)
