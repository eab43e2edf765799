"""A data set by name: embedded digits, a prepared TFDS set, or the user's own factory."""

from __future__ import annotations

from typing import Literal

from bap_jax.data.dataset import Dataset, Source, Splits
from bap_jax.data.digits import digits
from bap_jax.data.factory import from_factory
from bap_jax.data.prepared import PreparedSplit, Progress, read_prepared
from bap_jax.errors import SettingError
from bap_jax.plugins import is_import_path

SplitName = Literal["train", "validation", "test"]


def load_split(
    name: str,
    split: SplitName,
    *,
    data_dir: str | None = None,
    validation_fraction: float | None = None,
    limit: int | None = None,
    image_size: int | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    memory_limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """One split of a data set, decoded into memory if it fits.

    Validation is always a part of the training data (:func:`bap_jax.data.validation_rows`), the same for every seed; test is the
    data set's own test split (its validation split if it publishes no test split).

    Args:
      name: ``digits``; a TFDS name such as ``mnist``, ``name/config`` or ``name:1.0.0``; or ``package.module:factory``.
      split: ``train``, ``validation`` or ``test``.
      data_dir: the folder of prepared data sets; else ``TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.
      validation_fraction: the part of the training data that validates; 0.1 by default (1/8 of what is not test for digits).
      limit: only the first ``limit`` examples of the split (taken after the validation data is set apart).
      image_size: resize the shorter side of every image to this and cut out the middle square; needed where sizes differ.
      train_split: the TFDS split or slice that train and validation come from, e.g. ``train[:80%]``.
      test_split: the TFDS split or slice to test on, e.g. ``train[80%:]``.
      memory_limit: bytes; a split whose decoded images need more is read when asked for. By default 8 GiB, or a quarter of the
        machine's memory if that is less.
      progress: called with (examples decoded, examples in all).

    Returns:
      A :class:`Dataset`, or a :class:`PreparedSplit` where the images do not fit.

    Raises:
      DataError: the data set is absent (with the command that prepares it) or unfit.
      SettingError: an argument out of range, or one that this kind of data set does not have.

    Example:
      >>> len(load_split("digits", "test", limit=100))
      100
    """
    if split not in Splits._fields:
        raise SettingError("split", split, f"one of {', '.join(Splits._fields)}")
    if not name.strip():
        raise SettingError("data", name, "digits, the name of a TFDS data set, or package.module:factory")
    if limit is not None and limit < 1:
        raise SettingError("limit", limit, "a whole number of at least 1, or none for all examples")
    if _is_own(name):
        own = _own_splits(name, validation_fraction, image_size, train_split, test_split)
        return _limited(own[Splits._fields.index(split)], limit)
    return read_prepared(
        name,
        split,
        data_dir=data_dir,
        validation_fraction=0.1 if validation_fraction is None else validation_fraction,
        limit=limit,
        image_size=image_size,
        train_split=train_split,
        test_split=test_split,
        memory_limit=memory_limit,
        progress=progress,
    )


def load(
    name: str,
    *,
    data_dir: str | None = None,
    validation_fraction: float | None = None,
    limit: int | None = None,
    image_size: int | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    memory_limit: int | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Training, validation and test data by name. :func:`load_split` describes the arguments and errors.

    Returns:
      Splits.

    Example:
      >>> splits = load("digits")
      >>> len(splits.train), splits.train.image_shape, splits.train.num_classes
      (1259, (8, 8, 1), 10)
    """
    if _is_own(name) and (limit is None or limit >= 1):  # one call of the factory, not three
        own = _own_splits(name, validation_fraction, image_size, train_split, test_split)
        return Splits(*(_limited(split, limit) for split in own))
    return Splits(
        *(
            load_split(
                name,
                split,
                data_dir=data_dir,
                validation_fraction=validation_fraction,
                limit=limit,
                image_size=image_size,
                train_split=train_split,
                test_split=test_split,
                memory_limit=memory_limit,
                progress=progress,
            )
            for split in ("train", "validation", "test")
        )
    )


def _is_own(name: str) -> bool:
    return name == "digits" or is_import_path(name)


def _own_splits(
    name: str, validation_fraction: float | None, image_size: int | None, train_split: str, test_split: str | None
) -> Splits:
    """Digits, or what a factory returns; refuses the settings that only TFDS data sets have."""
    train = None if train_split == "train" else train_split
    for setting, value in (("image_size", image_size), ("train_split", train), ("test_split", test_split)):
        if value is not None:
            raise SettingError(setting, value, f"none: {name} is no TFDS data set")
    if name == "digits":
        return digits(validation_fraction=validation_fraction)
    if validation_fraction is not None:
        raise SettingError("validation_fraction", validation_fraction, f"none: {name} makes its own splits")
    return from_factory(name)


def _limited(dataset: Source, limit: int | None) -> Source:
    if limit is None:
        return dataset
    if isinstance(dataset, Dataset | PreparedSplit):
        return dataset.take(limit)
    raise SettingError("limit", limit, f"none: a {type(dataset).__name__} cannot be cut")
