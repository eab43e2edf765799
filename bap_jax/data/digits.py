"""scikit-learn's embedded digits: 1,797 pictures of 8×8 pixels, no download."""

from __future__ import annotations

import numpy as np

from bap_jax.data.dataset import Dataset, Splits
from bap_jax.errors import SettingError

_SHUFFLE_SEED = 1797  # of the split and the order, not of any run: every seed sees the same three splits


def digits(*, validation_fraction: float | None = None) -> Splits:
    """The digits data set in fixed, stratified splits: 1,259 train, 179 validation, 359 test with the default fraction.

    Each class is permuted once by a frozen generator (``numpy.random.RandomState``, whose stream never changes between
    versions); a fifth of it, rounded, is test, then an eighth of the rest, rounded, validates. Pixels 0…16 become 0…1.

    Args:
      validation_fraction: the part of the training data that validates; 1/8 by default.

    Returns:
      Splits of float32 images ``[N, 8, 8, 1]``.

    Raises:
      SettingError: a fraction outside (0, 1).

    Example:
      >>> [len(split) for split in digits()]
      [1259, 179, 359]

    References:
      E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part), as in scikit-learn.
    """
    fraction = 0.125 if validation_fraction is None else validation_fraction
    if not 0.0 < fraction < 1.0:
        raise SettingError("validation_fraction", validation_fraction, "a number between 0 and 1")
    from sklearn.datasets import load_digits  # here: importing it takes a second

    raw = load_digits()
    images = (raw.images / 16.0).astype(np.float32)[..., None]
    labels = raw.target.astype(np.int32)
    parts = _stratified(labels, fraction)
    named = zip(("train", "validation", "test"), parts, strict=True)
    return Splits(*(Dataset(images[rows], labels[rows], 10, name="digits", split=split) for split, rows in named))


def _stratified(labels: np.ndarray, fraction: float) -> list[np.ndarray]:
    generator = np.random.RandomState(_SHUFFLE_SEED)
    parts: list[list[np.ndarray]] = [[], [], []]  # test first: its rows and their order depend on no fraction
    for label in range(10):
        rows = generator.permutation(np.flatnonzero(labels == label))
        test = round(0.2 * len(rows))
        validation = max(1, round(fraction * (len(rows) - test)))
        for part, chosen in zip(parts, np.split(rows, [test, test + validation]), strict=True):
            part.append(chosen)
    test_rows, validation_rows, train_rows = (generator.permutation(np.concatenate(part)) for part in parts)
    return [train_rows, validation_rows, test_rows]
