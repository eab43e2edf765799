"""Batches from a data set: for training in a resumable order, for evaluation in file order, made ahead of the device."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from bap_jax.data.dataset import Source, check_images, check_labels
from bap_jax.data.order import batch_indices, steps_per_epoch
from bap_jax.errors import SettingError
from bap_jax.types import Batch

Rows = slice | np.ndarray  # which rows of the global batch
_ALL = slice(None)


def make_batch(dataset: Source, indices: np.ndarray, batch_size: int | None = None) -> Batch:
    """Read examples and put them into one batch, padded to a fixed size.

    Args:
      dataset: any source of examples.
      indices: ``[B]`` positions; ``len(dataset)`` stands for padding.
      batch_size: rows of the batch; more than ``B`` adds padding. ``B`` by default.

    Returns:
      Batch of numpy arrays: float32 images (uint8 divided by 255, so in [0, 1]), int32 labels and indices, float32 weights.
      Padding is an image at the lower bound with label 0, weight 0 and index ``len(dataset)``.

    Raises:
      SettingError: more indices than ``batch_size``, or an index outside the data set.
      DataError: an example that cannot be read, an image that leaves its bounds or is not finite, a label outside its range.

    Example:
      >>> import numpy as np
      >>> from bap_jax.data.dataset import Dataset
      >>> dataset = Dataset(np.full((3, 1, 1, 1), 255, np.uint8), np.array([2, 1, 0], np.int32), 3)
      >>> batch = make_batch(dataset, np.array([0, 2]), 3)
      >>> batch.labels.tolist(), batch.index.tolist(), batch.weight.tolist(), batch.images.ravel().tolist()
      ([2, 0, 0], [0, 2, 3], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0])
    """
    count = len(dataset)
    index = np.asarray(indices, np.int32)
    size = len(index) if batch_size is None else batch_size
    if len(index) > size:
        raise SettingError("batch_size", size, f"at least {len(index)}, the number of indices")
    if index.size and (index.min() < 0 or index.max() > count):
        raise SettingError("indices", [int(index.min()), int(index.max())], f"positions in [0, {count}), or {count} for padding")
    index = np.concatenate([index, np.full(size - len(index), count, np.int32)])
    real = index < count
    stored, stored_labels = dataset.read(index[real])
    where = f"{dataset.name} ({dataset.split})"
    check_labels(stored_labels, dataset.num_classes, where, index[real])
    check_images(stored, dataset.bounds, where, index[real])
    images = np.empty((size, *dataset.image_shape), np.float32)
    images[real] = _to_float(stored)
    images[~real] = np.asarray(dataset.bounds.lower, np.float32)
    labels = np.zeros(size, np.int32)
    labels[real] = stored_labels
    return Batch(images, labels, index, real.astype(np.float32))  # type: ignore[arg-type]


def _to_float(images: np.ndarray) -> np.ndarray:
    # A true division: 255 / 255 is exactly 1, 255 * (1 / 255) may not be.
    return images.astype(np.float32) / np.float32(255.0) if images.dtype == np.uint8 else images.astype(np.float32)


def train_batches(
    dataset: Source,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    stop_step: int | None = None,
    drop_remainder: bool = True,
    rows: Rows = _ALL,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """The training batches from any step on, made by another thread while the device works.

    Batch ``t`` holds the examples ``batch_indices(seed, t, ...)``, whatever happened before: starting at step ``t`` gives what an
    uninterrupted run saw there. Data that is read when asked for goes through grain (:func:`stream_batches`); the batches are
    the same.

    Args:
      dataset: the training data.
      seed: the run's seed.
      batch_size: examples in a batch, over all hosts.
      start_step: the first step.
      stop_step: the step to stop before; none by default, the iterator is endless.
      drop_remainder: leave out an epoch's last, smaller batch instead of padding it.
      rows: the rows of the global batch that this host makes; all by default.
      prefetch: how many batches to keep ready.

    Returns:
      An iterator of batches. Closing it (or dropping it) ends the thread.

    Raises:
      SettingError: at once, if the batch size does not fit the data set or the seed is out of range.
      DataError: from the iterator, at the batch that cannot be read or that :func:`make_batch` refuses.

    Example:
      >>> from bap_jax.data.digits import digits
      >>> batches = train_batches(digits().train, seed=0, batch_size=64, start_step=100, stop_step=102)
      >>> [batch.images.shape for batch in batches]
      [(64, 8, 8, 1), (64, 8, 8, 1)]
    """
    make = _maker(dataset, seed, batch_size, drop_remainder, rows, start_step)
    if not dataset.in_memory:
        return _stream(make, start_step, stop_step, threads=4, buffer=max(prefetch, 4))
    steps = itertools.count(start_step) if stop_step is None else range(start_step, stop_step)
    return _ahead(make, steps, prefetch)


def stream_batches(
    dataset: Source,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    stop_step: int | None = None,
    drop_remainder: bool = True,
    rows: Rows = _ALL,
    threads: int = 4,
    buffer: int = 8,
) -> Iterator[Batch]:
    """The same batches as :func:`train_batches`, read and decoded by grain in several threads.

    Each step is one element of a ``grain.MapDataset`` over the steps, so the order needs no state and any step can be the first.

    Args:
      dataset: the training data.
      seed: the run's seed.
      batch_size: examples in a batch, over all hosts.
      start_step: the first step.
      stop_step: the step to stop before; none by default.
      drop_remainder: leave out an epoch's last, smaller batch instead of padding it.
      rows: the rows of the global batch that this host makes; all by default.
      threads: batches that are read at the same time.
      buffer: batches that are kept ready.

    Returns:
      An iterator of batches.

    Raises:
      SettingError: at once, if the batch size does not fit the data set or the seed is out of range.

    Example:
      >>> from bap_jax.data.digits import digits
      >>> batches = stream_batches(digits().train, seed=0, batch_size=8, start_step=3, stop_step=5, threads=1)
      >>> [batch.labels.shape for batch in batches]
      [(8,), (8,)]
    """
    make = _maker(dataset, seed, batch_size, drop_remainder, rows, start_step)
    return _stream(make, start_step, stop_step, threads, buffer)


def evaluation_batches(
    dataset: Source, batch_size: int, *, limit: int | None = None, rows: Rows = _ALL, prefetch: int = 2
) -> Iterator[Batch]:
    """Every example once, in file order, in batches of one size; the last is padded.

    Args:
      dataset: what to evaluate on.
      batch_size: rows of every batch, over all hosts.
      limit: only the first ``limit`` examples.
      rows: the rows of the global batch that this host makes; all by default.
      prefetch: how many batches to keep ready.

    Returns:
      An iterator of ``ceil(n / batch_size)`` batches; padding has weight 0 and index ``len(dataset)``.

    Raises:
      SettingError: a batch size or a limit below 1.
      DataError: from the iterator, as for :func:`train_batches`.

    Example:
      >>> from bap_jax.data.digits import digits
      >>> [int(batch.weight.sum()) for batch in evaluation_batches(digits().test, 150)]
      [150, 150, 59]
    """
    if batch_size < 1:
        raise SettingError("batch_size", batch_size, "a whole number of at least 1")
    if limit is not None and limit < 1:
        raise SettingError("limit", limit, "a whole number of at least 1, or none for all examples")
    count = len(dataset) if limit is None else min(limit, len(dataset))

    def make(number: int) -> Batch:
        index = np.full(batch_size, len(dataset), np.int32)
        chosen = np.arange(number * batch_size, min((number + 1) * batch_size, count), dtype=np.int32)
        index[: len(chosen)] = chosen
        return make_batch(dataset, index[rows])

    return _ahead(make, range(-(-count // batch_size)), prefetch)


def _maker(
    dataset: Source, seed: int, batch_size: int, drop_remainder: bool, rows: Rows, start_step: int
) -> Callable[[int], Batch]:
    count = len(dataset)
    steps_per_epoch(count, batch_size)  # raises before any work starts, and so does the first draw of an order
    if start_step < 0:
        raise SettingError("start_step", start_step, "a step of at least 0")
    batch_indices(seed, start_step, batch_size, count, drop_remainder=drop_remainder)

    def make(step: int) -> Batch:
        return make_batch(dataset, batch_indices(seed, step, batch_size, count, drop_remainder=drop_remainder)[rows])

    return make


def _ahead(make: Callable[[int], Batch], numbers: Iterable[int], prefetch: int) -> Iterator[Batch]:
    """Make the batches in one other thread, ``prefetch`` ahead of the caller; an error surfaces at its own batch."""
    if prefetch < 1:
        yield from map(make, numbers)
        return
    remaining = iter(numbers)
    worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        waiting = collections.deque(worker.submit(make, number) for number in itertools.islice(remaining, prefetch))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(worker.submit(make, number) for number in itertools.islice(remaining, 1))
            yield batch
    finally:
        worker.shutdown(wait=True, cancel_futures=True)


def _stream(make: Callable[[int], Batch], start: int, stop: int | None, threads: int, buffer: int) -> Iterator[Batch]:
    import grain  # here: only data that does not fit needs it

    steps = grain.MapDataset.range(start, 2**31 - 1 if stop is None else stop)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, buffer))
    return iter(steps.map(lambda step: make(int(step))).to_iter_dataset(options))
