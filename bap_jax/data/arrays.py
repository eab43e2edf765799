"""Data that is in memory already, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from bap_jax.data.dataset import Dataset, Splits, check
from bap_jax.data.split import validation_rows
from bap_jax.errors import DataError, SettingError
from bap_jax.types import Bounds


def from_arrays(
    images: Any,
    labels: Any,
    *,
    test: tuple[Any, Any] | None = None,
    num_classes: int | None = None,
    bounds: Bounds = Bounds(),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    name: str = "arrays",
) -> Splits:
    """Arrays as training, validation and test data. Rows that are set apart lie at even distances, always the same ones.

    Args:
      images: ``[N, H, W, C]`` (or any ``[N, ...]``) uint8, read as ``value / 255``, or floats inside the bounds.
      labels: ``[N]`` whole numbers in [0, num_classes).
      test: images and labels to test on; by default a part of the others is set apart.
      num_classes: how many classes there are; by default one more than the largest label.
      bounds: the box of the images (of bytes, after ``/ 255``).
      validation_fraction: the part of what is not test data that validates.
      test_fraction: the part that tests, where ``test`` is not given.
      name: what the data is called.

    Returns:
      Splits.

    Raises:
      DataError: data that is unfit, naming the first example that is wrong.

    Example:
      >>> splits = from_arrays(np.zeros((100, 4, 4, 1), np.uint8), np.arange(100) % 3)
      >>> [len(split) for split in splits], splits.train.num_classes
      ([81, 9, 10], 3)
    """
    images, labels = _images(images), _labels(labels)
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images)} images and {len(labels)} labels")
    if test is None:
        rest, rows = validation_rows(len(labels), test_fraction, shuffled=False)
        tested = images[rows], labels[rows]
        images, labels = images[rest], labels[rest]
    else:
        tested = _images(test[0]), _labels(test[1])
    if num_classes is None:
        told = np.concatenate([labels.ravel(), tested[1].ravel()])
        num_classes = 1 + int(told[np.isfinite(told)].max(initial=0))  # what is no number is refused below
    train, validation = validation_rows(len(labels), validation_fraction, shuffled=False)
    parts = (images[train], labels[train]), (images[validation], labels[validation]), tested
    splits = Splits(
        *(Dataset(*part, num_classes, bounds, name, split) for part, split in zip(parts, Splits._fields, strict=True))
    )
    for split in splits:
        check(split)
    return splits


def _images(images: Any) -> np.ndarray:
    images = np.asarray(images)
    if not np.issubdtype(images.dtype, np.floating):
        return images
    with np.errstate(over="ignore"):  # what is too large is infinite then, and refused as such
        return images.astype(np.float32)


def _labels(labels: Any) -> np.ndarray:
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        return labels
    small = labels.astype(np.int32)
    if not np.array_equal(small, labels):  # cut to 32 bits they would be others
        raise SettingError("labels", int(labels[small != labels][0]), "class numbers, from 0 on")
    return small
