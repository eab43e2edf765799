"""What check() refuses, and what statistics() counts."""

import dataclasses

import numpy as np
import pytest

from bap_jax.data import Dataset, Source, check, statistics
from bap_jax.errors import DataError
from bap_jax.types import Bounds


def make(**changes) -> Dataset:
    good = Dataset(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 2, 2, 1), np.array([0, 1, 2], np.int32), 3, name="rings")
    return dataclasses.replace(good, **changes)


def test_a_good_data_set_passes():
    check(make())
    check(make(images=np.full((3, 2, 2, 1), 255, np.uint8)))
    check(make(images=np.full((3, 2, 2, 1), -1.0, np.float32), bounds=Bounds(-1.0, 1.0)))
    for shape in ((3, 3, 4, 3), (3, 1, 4, 1), (3, 2, 4, 4), (3, 3), (3, 3, 4), (3, 3, 4, 4, 4)):
        check(make(images=np.zeros(shape, np.uint8)))
    assert isinstance(make(), Source)


def images(value: float) -> np.ndarray:
    out = np.zeros((3, 2, 2, 1), np.float32)
    out[1, 0, 1, 0] = value
    return out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": images(1.01)}, r"image 1 leaves its bounds \[0, 1\]: its values go from 0 to 1.01"),
        ({"images": images(-0.01)}, r"image 1 leaves its bounds"),
        ({"images": images(np.nan)}, "image 1 holds NaN or infinity"),
        ({"images": images(np.inf), "bounds": Bounds(0.0, np.inf)}, "image 1 holds NaN or infinity"),
        ({"images": np.zeros((3, 2, 2, 1), np.int64)}, "images have dtype int64, expected uint8 or float32"),
        ({"images": np.zeros((3, 2, 2, 1), np.uint8), "bounds": Bounds(-1.0, 1.0)}, "uint8 images are read as value / 255"),
        ({"images": np.zeros((2, 2, 2, 1), np.float32)}, "do not fit"),
        ({"images": np.zeros(3, np.float32)}, "do not fit"),
        (
            {"images": np.zeros((3, 3, 4, 4), np.uint8)},
            r"\[3, 3, 4, 4\] look like \[N, C, H, W\].*images.transpose\(0, 2, 3, 1\)",
        ),
        ({"images": np.zeros((3, 1, 4, 2), np.float32)}, r"look like \[N, C, H, W\].* 1 high: swapaxes\(1, 2\)"),
        ({"labels": np.array([0, 3, 1], np.int32)}, r"label 3 of example 1 lies outside \[0, 2\]"),
        ({"labels": np.array([0, 1, -1], np.int32)}, r"label -1 of example 2 lies outside \[0, 2\]"),
        ({"labels": np.array([0.0, 1.0, 2.0])}, "labels have dtype float64"),
        ({"labels": np.eye(3, dtype=np.int32)}, "do not fit"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"images": np.zeros((0, 2, 2, 1), np.float32), "labels": np.zeros(0, np.int32)}, "holds no examples"),
    ],
)
def test_check_names_what_is_wrong(changes, message):
    with pytest.raises(DataError, match=rf"^rings \(train\): .*{message}"):
        check(make(**changes))


def test_take_cuts_and_read_picks():
    dataset = make()
    assert len(dataset.take(2)) == 2
    assert len(dataset.take(10)) == 3
    read, labels = dataset.read(np.array([2, 0]))
    np.testing.assert_array_equal(labels, [2, 0])
    np.testing.assert_array_equal(read, dataset.images[[2, 0]])


def test_statistics_agree_with_numpy_whatever_the_chunk():
    stored = np.random.RandomState(0).randint(0, 256, (11, 3, 4, 2)).astype(np.uint8)
    dataset = Dataset(stored, np.arange(11, dtype=np.int32) % 4, 5)
    numbers = statistics(dataset, chunk=4)
    np.testing.assert_allclose(numbers.mean, (stored / 255).mean((0, 1, 2)))
    np.testing.assert_allclose(numbers.std, (stored / 255).std((0, 1, 2)))
    np.testing.assert_array_equal(numbers.label_counts, [3, 3, 3, 2, 0])
    assert numbers.num_examples == 11
