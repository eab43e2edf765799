"""How a validation split is taken from the training data: fixed, the same for every seed."""

from __future__ import annotations

import numpy as np

from bap_jax.errors import DataError, SettingError


def validation_rows(num_examples: int, fraction: float, *, shuffled: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of the training data train, and which validate.

    Data that was shuffled when it was written (TFDS does) gives its last rows, so that ``fraction=0.1`` is what TFDS calls
    ``train[90%:]``. Data in another order, e.g. sorted by class, gives rows at even distances.

    Args:
      num_examples: rows in the training data.
      fraction: the part that validates, in (0, 1).
      shuffled: whether the rows are in random order.

    Returns:
      (training rows, validation rows), both sorted, disjoint, together all rows.

    Raises:
      SettingError: a fraction outside (0, 1).
      DataError: too few examples for both.

    Example:
      >>> validation_rows(10, 0.2)
      (array([0, 1, 2, 3, 4, 5, 6, 7]), array([8, 9]))
      >>> validation_rows(10, 0.2, shuffled=False)[1]
      array([4, 9])
    """
    if not 0.0 < fraction < 1.0:
        raise SettingError("validation_fraction", fraction, "a number between 0 and 1: a validation split is always taken")
    count = max(1, round(num_examples * fraction))
    if count >= num_examples:
        raise DataError(f"{num_examples} training examples are too few to take a validation split of {fraction:g} from them")
    rows = np.arange(num_examples)
    if shuffled:
        return rows[: num_examples - count], rows[num_examples - count :]
    chosen = (np.arange(1, count + 1) * num_examples) // count - 1
    return np.delete(rows, chosen), chosen
