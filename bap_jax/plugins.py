"""Names that mean the user's own code: ``package.module:factory``."""

from __future__ import annotations

import importlib
from typing import Any

from bap_jax.errors import SettingError


def is_import_path(name: str) -> bool:
    """Whether a name means ``package.module:attribute``; ``mnist:3.0.1``, a name with a version, does not.

    Example:
      >>> is_import_path("my_package.data:rings"), is_import_path("mnist:3.0.1"), is_import_path("mnist")
      (True, False, False)
    """
    module, _, attribute = name.partition(":")
    return attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_object(setting: str, path: str) -> Any:
    """What ``package.module:attribute`` names.

    Args:
      setting: the setting that holds the path, for the error.
      path: the name; its module has to be installed or on ``PYTHONPATH``.

    Raises:
      SettingError: no such module, no such attribute, or something that cannot be called.

    Example:
      >>> import_object("--data", "math:floor")(1.5)
      1
    """
    module_name, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise SettingError(setting, path, f"a module that is installed or on PYTHONPATH ({error})") from error
    except AttributeError:
        raise SettingError(setting, path, f"an attribute of {module_name}, which has no {attribute!r}") from None
    if not callable(found):
        raise SettingError(setting, path, f"a function; {attribute} is a {type(found).__name__}")
    return found
