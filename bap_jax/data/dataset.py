"""A labelled image data set in memory, and the checks it has to pass before work starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from bap_jax.errors import DataError
from bap_jax.inputs import channels_first
from bap_jax.types import Bounds


@runtime_checkable
class Source(Protocol):
    """What batches are made of: examples by position, in memory or read when asked for."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def bounds(self) -> Bounds: ...

    @property
    def image_shape(self) -> tuple[int, ...]: ...

    @property
    def in_memory(self) -> bool: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images ``[B, ...]`` as stored and labels ``[B]`` int32 of these positions."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a labelled image data set, in memory.

    Args:
      images: ``[N, H, W, C]`` (or any ``[N, ...]``) uint8, read as ``value / 255``, or float32 as it is.
      labels: ``[N]`` int32.
      num_classes: the number of classes; labels lie in ``[0, num_classes)``.
      bounds: the box of the images as the network sees them (after ``/ 255``).
      name: the data set, e.g. ``mnist``.
      split: ``train``, ``validation`` or ``test``.

    Example:
      >>> import numpy as np
      >>> dataset = Dataset(np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 1], np.int32), 2)
      >>> len(dataset), dataset.image_shape, dataset.read([2])[1]
      (3, (2, 2, 1), array([1], dtype=int32))
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    bounds: Bounds = Bounds(0.0, 1.0)
    name: str = "data"
    split: str = "train"
    in_memory: bool = dataclasses.field(default=True, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of these positions, as stored."""
        rows = np.asarray(indices, dtype=np.int64)
        return self.images[rows], self.labels[rows]

    def take(self, limit: int) -> Dataset:
        """The first ``limit`` examples (all of them if there are fewer)."""
        return dataclasses.replace(self, images=self.images[:limit], labels=self.labels[:limit])


class Splits(NamedTuple):
    """Training, validation and test data. Validation comes from the training data; nothing is ever chosen on test."""

    train: Source
    validation: Source
    test: Source


def check(dataset: Source) -> None:
    """Raise if a data set in memory is unfit: shapes, axes, types, finite images inside their bounds, labels in range.

    A data set that is read when asked for is checked on its first examples here and on every later one as it is read.

    Args:
      dataset: what to check.

    Raises:
      DataError: names the data set, the split and the first example that is wrong.

    Example:
      >>> import numpy as np
      >>> check(Dataset(np.full((2, 2, 2, 1), 1.5, np.float32), np.array([0, 1], np.int32), 2))  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      bap_jax.errors.DataError: data (train): image 0 leaves its bounds [0, 1]: its values go from 1.5 to 1.5; scale...
    """
    where = f"{dataset.name} ({dataset.split})"
    if len(dataset) == 0:
        raise DataError(f"{where}: holds no examples")
    if dataset.num_classes < 2:
        raise DataError(f"{where}: num_classes is {dataset.num_classes}, a classifier needs at least 2")
    if isinstance(dataset, Dataset):
        images, labels = dataset.images, dataset.labels
        if images.ndim < 2 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(f"{where}: images {images.shape} and labels {labels.shape} do not fit: expected [N, H, W, C] and [N]")
    else:
        images, labels = dataset.read(np.arange(min(len(dataset), 64)))
    if channels_first(images.shape):
        raise DataError(
            f"{where}: images {list(images.shape)} look like [N, C, H, W] and are read as [N, H, W, C]: "
            f"images.transpose(0, 2, 3, 1) puts the channels last (if they really are {images.shape[1]} high: swapaxes(1, 2))"
        )
    check_labels(labels, dataset.num_classes, where)
    check_images(images, dataset.bounds, where)


def check_labels(labels: np.ndarray, num_classes: int, where: str, positions: np.ndarray | None = None) -> None:
    """Raise a DataError unless labels are integers in ``[0, num_classes)``; ``positions`` are theirs in the data set."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}: labels have dtype {labels.dtype}, expected whole numbers (int32)")
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        example = wrong[0] if positions is None else positions[wrong[0]]
        raise DataError(f"{where}: label {labels[wrong[0]]} of example {example} lies outside [0, {num_classes - 1}]")


def check_images(images: np.ndarray, bounds: Bounds, where: str, positions: np.ndarray | None = None) -> None:
    """Raise a DataError unless images are uint8 in bounds ``[0, 1]``, or finite floats inside their bounds; ``positions`` are
    theirs in the data set.
    """
    if images.dtype == np.uint8:
        if not (np.all(np.asarray(bounds.lower) == 0.0) and np.all(np.asarray(bounds.upper) == 1.0)):
            raise DataError(f"{where}: uint8 images are read as value / 255, so their bounds are [0, 1], not {bounds}")
        return
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{where}: images have dtype {images.dtype}, expected uint8 or float32")
    lower, upper = np.asarray(bounds.lower, np.float32), np.asarray(bounds.upper, np.float32)
    if not len(images) or _all_inside(images, lower, upper):
        return
    named = np.arange(len(images)) if positions is None else positions
    rows = tuple(range(1, images.ndim))
    wrong = np.flatnonzero(~np.isfinite(images).all(axis=rows))
    if len(wrong):
        raise DataError(f"{where}: image {named[wrong[0]]} holds NaN or infinity")
    wrong = np.flatnonzero(~((images >= lower) & (images <= upper)).all(axis=rows))
    if len(wrong):
        image, box = images[wrong[0]], f"[{lower.min():g}, {upper.max():g}]"
        raise DataError(
            f"{where}: image {named[wrong[0]]} leaves its bounds {box}: its values go from {image.min():.8g} to "
            f"{image.max():.8g}; scale the images (normalisation belongs into the model)"
        )


def _all_inside(images: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Two passes without a copy, so that every batch of training can be looked at; NaN is inside of nothing."""
    least, largest = images.min(axis=0), images.max(axis=0)
    finite = np.isfinite(least).all() and np.isfinite(largest).all()
    return bool(finite and (least >= lower).all() and (largest <= upper).all())


class Statistics(NamedTuple):
    """What a data set holds, in numbers."""

    num_examples: int
    mean: np.ndarray  # [C] per channel, after / 255
    std: np.ndarray  # [C]
    label_counts: np.ndarray  # [K]


def statistics(dataset: Source, chunk: int = 4096) -> Statistics:
    """Mean and standard deviation per channel (of the images as the network sees them) and examples per class.

    Args:
      dataset: any source whose images end in a channel dimension.
      chunk: how many images are converted at a time.

    Returns:
      Statistics, float64.

    Example:
      >>> import numpy as np
      >>> numbers = statistics(Dataset(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), np.array([1, 1], np.int32), 3))
      >>> numbers.mean.tolist(), numbers.std.tolist(), numbers.label_counts.tolist()
      ([0.5], [0.5], [0, 2, 0])
    """
    count, total, squares = 0, np.zeros(dataset.image_shape[-1]), np.zeros(dataset.image_shape[-1])
    label_counts = np.zeros(dataset.num_classes, np.int64)
    for start in range(0, len(dataset), chunk):
        images, labels = dataset.read(np.arange(start, min(start + chunk, len(dataset))))
        first, second = _moments(images.reshape(-1, images.shape[-1]))
        count, total, squares = count + images[..., 0].size, total + first, squares + second
        label_counts += np.bincount(labels, minlength=dataset.num_classes)
    mean = total / count
    return Statistics(len(dataset), mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0)), label_counts)


def _moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares per channel; of bytes by counting them, which is exact and many times faster."""
    if pixels.dtype != np.uint8:
        values = pixels.astype(np.float64)
        return values.sum(0), (values**2).sum(0)
    levels = np.arange(256) / 255.0
    counts = np.stack([np.bincount(channel, minlength=256) for channel in pixels.T])
    return counts @ levels, counts @ levels**2
