"""Every batch is looked at as it is made: data that nobody checked before does not train or evaluate without a word."""

import numpy as np
import pytest

from bap_jax.data import Dataset, evaluation_batches, make_batch, stream_batches, train_batches
from bap_jax.errors import DataError
from bap_jax.types import Bounds

N = 12
IMAGES = np.random.RandomState(0).rand(N, 3, 3, 1).astype(np.float32)
LABELS = (np.arange(N) % 3).astype(np.int32)


def made(images=IMAGES, labels=LABELS, **other):
    return Dataset(images, labels, 3, name="mine", **other)


def changed(array, position, value):
    out = array.copy()
    out[position] = value
    return out


MAKERS = {
    "make_batch": lambda data: make_batch(data, np.arange(N)),
    "train_batches": lambda data: list(train_batches(data, seed=0, batch_size=4, stop_step=3)),
    "stream_batches": lambda data: list(stream_batches(data, seed=0, batch_size=4, stop_step=3, threads=1)),
    "evaluation_batches": lambda data: list(evaluation_batches(data, 5)),
}
UNFIT = {
    "standardised": (made((IMAGES - IMAGES.mean()) / IMAGES.std()), r"leaves its bounds \[0, 1\]: .*normalisation belongs into"),
    "one_pixel": (made(changed(IMAGES, (7, 1, 1, 0), 1.5)), r"image 7 leaves its bounds"),
    "rounding_is_told": (made(changed(IMAGES, (7, 1, 1, 0), np.nextafter(np.float32(1), 2))), "to 1.0000001;"),
    "nan": (made(changed(IMAGES, (7, 1, 1, 0), np.nan)), "image 7 holds NaN"),
    "inf_in_an_endless_box": (
        made(changed(IMAGES, (7, 1, 1, 0), np.inf), bounds=Bounds(0.0, np.inf)),
        "image 7 holds NaN or inf",
    ),
    "a_box_per_pixel": (made(bounds=Bounds(np.zeros((3, 3, 1)), np.full((3, 3, 1), 0.5))), "leaves its bounds"),
    "whole_numbers": (made((IMAGES * 255).astype(np.int32)), "images have dtype int32"),
    "bytes_in_another_box": (made((IMAGES * 255).astype(np.uint8), bounds=Bounds(-1.0, 1.0)), "value / 255"),
    "label_too_large": (made(labels=changed(LABELS, 5, 3)), "label 3 of example 5 lies outside"),
    "label_below": (made(labels=changed(LABELS, 5, -1)), "label -1 of example 5"),
    "labels_in_floats": (made(labels=LABELS.astype(np.float32)), "labels have dtype float32"),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("kind", UNFIT)
def test_unfit_data_makes_no_batch(kind, maker):
    data, message = UNFIT[kind]
    with pytest.raises(DataError, match=rf"mine \(train\): .*{message}"):
        MAKERS[maker](data)


def test_fit_data_makes_the_same_batches_as_ever():
    images = np.where(IMAGES < 0.5, 0, 1).astype(np.float64)  # the whole box, in another precision
    for data in (made(), made(images), made(IMAGES * 2 - 1, bounds=Bounds(-1.0, 1.0)), made((IMAGES * 255).astype(np.uint8))):
        for maker in MAKERS.values():
            maker(data)
    batch = make_batch(made(), np.array([3, 1]), 3)
    np.testing.assert_array_equal(batch.images[:2], IMAGES[[3, 1]])


def test_a_batch_of_padding_alone_has_nothing_to_check():
    assert make_batch(made(), np.full(2, N)).weight.tolist() == [0, 0]
