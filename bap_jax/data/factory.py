"""A data set from the user's own code: ``package.module:factory``."""

from __future__ import annotations

import importlib
from typing import Any

from bap_jax.data.dataset import Source, Splits, check
from bap_jax.errors import DataError


def is_import_path(name: str) -> bool:
    """Whether a name means ``package.module:attribute``; ``mnist:3.0.1`` is a TFDS name with a version.

    Example:
      >>> is_import_path("my_package.data:rings"), is_import_path("mnist:3.0.1"), is_import_path("mnist")
      (True, False, False)
    """
    module, _, attribute = name.partition(":")
    return attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_object(path: str) -> Any:
    """What ``package.module:attribute`` names.

    Raises:
      DataError: no such module (it has to be on ``PYTHONPATH``), or no such attribute in it.

    Example:
      >>> import_object("math:floor")(1.5)
      1
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: {error}; the module has to be installed or on PYTHONPATH") from error
    if not hasattr(module, attribute):
        raise DataError(f"{path}: module {module_name} has no {attribute!r}")
    return getattr(module, attribute)


def from_factory(path: str) -> Splits:
    """Call a factory that returns :class:`Splits`, and check what it returns.

    Args:
      path: ``package.module:factory``, a function without required arguments.

    Returns:
      The splits, checked.

    Raises:
      DataError: nothing to import, something else returned, or a split that fails :func:`bap_jax.data.check`.

    Example:
      >>> from_factory("bap_jax.data.digits:digits").test.num_classes
      10
    """
    factory = import_object(path)
    if not callable(factory):
        raise DataError(f"{path}: is a {type(factory).__name__}, expected a function that returns bap_jax.data.Splits")
    splits = factory()
    if not isinstance(splits, Splits) or not all(isinstance(split, Source) for split in splits):
        raise DataError(f"{path}: returned a {type(splits).__name__}, expected bap_jax.data.Splits of data sets")
    for split in splits:
        check(split)
    return splits
