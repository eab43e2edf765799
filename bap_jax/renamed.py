"""Names that a module had before: they are found for one release, and say what they are called now."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any


def renamed(module: str, **names: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that finds names under which it offered something before.

    Args:
      module: its ``__name__``.
      names: the old name of each thing, and the new one, which the module has.

    Raises:
      AttributeError: when called with any other name.

    Example:
      >>> __getattr__ = renamed("math", tangent="tan")
      >>> import math, warnings
      >>> with warnings.catch_warnings():
      ...     warnings.simplefilter("ignore", FutureWarning)
      ...     __getattr__("tangent") is math.tan
      True
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        text = f"{module}.{name} is {names[name]} now; the old name goes with the next release"
        warnings.warn(text, FutureWarning, stacklevel=2)
        return getattr(sys.modules[module], names[name])

    return find
