"""A data set from the user's own code: ``package.module:factory``."""

from __future__ import annotations

from bap_jax.data.dataset import Source, Splits, check
from bap_jax.errors import DataError
from bap_jax.plugins import import_object


def from_factory(path: str) -> Splits:
    """Call a factory that returns :class:`Splits`, and check what it returns.

    Args:
      path: ``package.module:factory``, a function without required arguments.

    Returns:
      The splits, checked.

    Raises:
      SettingError: nothing to import, or nothing that can be called.
      DataError: something else returned, or a split that fails :func:`bap_jax.data.check`.

    Example:
      >>> from_factory("bap_jax.data.digits:digits").test.num_classes
      10
    """
    factory = import_object("data", path)
    splits = factory()
    if not isinstance(splits, Splits) or not all(isinstance(split, Source) for split in splits):
        raise DataError(f"{path}: returned a {type(splits).__name__}, expected bap_jax.data.Splits of data sets")
    for split in splits:
        check(split)
    return splits
