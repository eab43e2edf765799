"""The order of the examples as a pure function of seed and step: a resume at any step needs no iterator state."""

from __future__ import annotations

import functools

import numpy as np

from bap_jax.errors import SettingError


def epoch_permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order in which an epoch visits the examples.

    Drawn from ``numpy.random.RandomState``, whose stream is frozen: the order is the same on every machine and version.

    Args:
      seed: the run's seed, in [0, 2³²).
      epoch: the epoch's number, from 0.
      num_examples: how many examples there are.

    Returns:
      ``[num_examples]`` int32, each position once; read-only.

    Raises:
      SettingError: a seed outside [0, 2³²).

    Example:
      >>> order = epoch_permutation(0, 0, 5)
      >>> sorted(order.tolist()), bool((order == epoch_permutation(0, 0, 5)).all())
      ([0, 1, 2, 3, 4], True)
    """
    if not 0 <= seed < 2**32:
        raise SettingError("seed", seed, "a whole number in [0, 2**32)")
    return _permutation(int(seed), int(epoch), int(num_examples))


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    order = np.random.RandomState([seed, epoch]).permutation(num_examples).astype(np.int32)
    order.flags.writeable = False  # it is shared through the cache
    return order


def steps_per_epoch(num_examples: int, batch_size: int, *, drop_remainder: bool = True) -> int:
    """How many batches an epoch has.

    Args:
      num_examples: examples in the training data.
      batch_size: examples in a batch.
      drop_remainder: leave out the last, smaller batch (each epoch another few examples) instead of padding it.

    Returns:
      The number of steps, at least 1.

    Raises:
      SettingError: a batch size below 1, or larger than the data set.

    Example:
      >>> steps_per_epoch(54_000, 128), steps_per_epoch(54_000, 128, drop_remainder=False)
      (421, 422)
    """
    if batch_size < 1:
        raise SettingError("batch_size", batch_size, "a whole number of at least 1")
    if batch_size > num_examples:
        raise SettingError("batch_size", batch_size, f"at most {num_examples}, the number of training examples")
    return num_examples // batch_size if drop_remainder else -(-num_examples // batch_size)


def batch_indices(seed: int, step: int, batch_size: int, num_examples: int, *, drop_remainder: bool = True) -> np.ndarray:
    """The examples of one training step.

    Args:
      seed: the run's seed.
      step: the training step, counted from 0 over all epochs.
      batch_size: examples in a batch (over all devices and hosts).
      num_examples: examples in the training data.
      drop_remainder: see :func:`steps_per_epoch`.

    Returns:
      ``[batch_size]`` int32; ``num_examples`` stands for padding.

    Raises:
      SettingError: a batch size that does not fit, a seed out of range.

    Example:
      >>> first, second = batch_indices(0, 0, 2, 5), batch_indices(0, 1, 2, 5)
      >>> len({*first.tolist(), *second.tolist()})
      4
      >>> batch_indices(0, 2, 2, 5, drop_remainder=False)[1]
      np.int32(5)
    """
    epoch, position = divmod(int(step), steps_per_epoch(num_examples, batch_size, drop_remainder=drop_remainder))
    chosen = epoch_permutation(seed, epoch, num_examples)[position * batch_size : (position + 1) * batch_size]
    return np.concatenate([chosen, np.full(batch_size - len(chosen), num_examples, np.int32)])
