"""The data that settings name."""

from __future__ import annotations

from typing import Any

from bap_jax import data as data_layer
from bap_jax.data import Source, Splits
from bap_jax.errors import SettingError
from bap_jax.plugins import is_import_path
from bap_jax.runs.settings import Settings

_CUT = ("image_size", "train_split", "test_split")  # what a data set of TFDS is asked for besides


def load_data(settings: Settings, progress: Any = None) -> Splits:
    """The three splits, of training no more than ``--limit`` examples; ``progress`` as of :func:`bap_jax.data.load`.

    Raises:
      SettingError, DataError: as there.
    """
    splits = data_layer.load(settings.data, data_dir=settings.data_dir, progress=progress, **_cut(settings))
    if settings.limit is None:
        return splits
    if not hasattr(splits.train, "take"):
        raise SettingError("--limit", settings.limit, f"none: a {type(splits.train).__name__} has no take()")
    return splits._replace(train=splits.train.take(settings.limit))


def split_of(settings: Settings, split: Any, data_dir: str | None = None, *, limit: int | None = None) -> Source:
    """One of the splits.

    Args:
      settings: of a run.
      split: ``train``, ``validation`` or ``test``.
      data_dir: where prepared data sets are, if not where the settings say.
      limit: only the first so many examples.

    Raises:
      SettingError, DataError: as :func:`bap_jax.data.load_split`.
    """
    return data_layer.load_split(settings.data, split, data_dir=data_dir or settings.data_dir, limit=limit, **_cut(settings))


def example_of(settings: Settings, data_dir: str | None = None) -> Source:
    """A little of the test data: for the shape of its images, their bounds and the number of classes."""
    return split_of(settings, "test", data_dir, limit=None if is_import_path(settings.data) else 1)


def only_data(settings: Settings) -> Settings:
    """Settings with nothing in them but the data that these name: equal wherever the data is the same."""
    return Settings(**{name: getattr(settings, name) for name in ("data", "data_dir", "limit", *_CUT)})


def _cut(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in _CUT}
