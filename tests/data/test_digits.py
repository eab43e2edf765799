"""The embedded digits: counts, stratification, values, and splits that share nothing."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bap_jax.data import check, digits
from bap_jax.errors import SettingError


def rows_of(dataset) -> set[bytes]:
    return {image.tobytes() for image in dataset.images}


def test_counts_and_stratification():
    splits = digits()
    assert [len(split) for split in splits] == [1259, 179, 359]
    everything = np.bincount(load_digits().target)
    for split, part in zip(splits, (0.7, 0.1, 0.2), strict=True):
        assert np.abs(np.bincount(split.labels) - part * everything).max() <= 1.5
    assert [split.split for split in splits] == ["train", "validation", "test"]


def test_splits_share_nothing_and_lose_nothing():
    splits = digits()
    raw = {image.tobytes() for image in (load_digits().images / 16.0).astype(np.float32)}
    assert len(raw) == 1797  # no two pictures are the same, so that a picture identifies its row
    parts = [rows_of(split) for split in splits]
    assert parts[0] | parts[1] | parts[2] == raw
    assert sum(map(len, parts)) == 1797


def test_every_picture_keeps_its_label():
    raw = load_digits()
    truth = {image.astype(np.float32).tobytes(): label for image, label in zip(raw.images / 16.0, raw.target, strict=True)}
    for split in digits():
        assert split.images.shape[1:] == (8, 8, 1)
        assert split.images.dtype == np.float32
        assert split.labels.dtype == np.int32
        assert split.labels.tolist() == [truth[image.tobytes()] for image in split.images]
        assert (split.images.min(), split.images.max()) == (0.0, 1.0)
        check(split)


def test_the_order_is_fixed_and_mixed():
    first, second = digits(), digits()
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.labels, two.labels)
    # Recorded from this code with numpy 2.4.6 and 2.5.5: RandomState's stream is frozen, so these may not change.
    assert first.train.labels[:10].tolist() == [0, 1, 8, 7, 6, 8, 7, 2, 4, 8]
    assert first.test.labels[:10].tolist() == [7, 5, 7, 5, 4, 3, 3, 1, 6, 5]


def test_another_fraction_leaves_test_alone():
    usual, other = digits(), digits(validation_fraction=0.3)
    np.testing.assert_array_equal(usual.test.images, other.test.images)
    assert len(other.validation) == pytest.approx(0.3 * (1797 - 359), abs=5)
    with pytest.raises(SettingError, match="validation_fraction"):
        digits(validation_fraction=1.0)
