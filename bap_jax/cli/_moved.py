"""Names that stand in users' sweep files, at the place where they were until the command line was split: for one release."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def moved(old: str, new: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that finds its names in another module, and warns with the name of that.

    Args:
      old: the module as it was called.
      new: where its names are now.
    """

    def find(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(new), name)
        warnings.warn(f"{old} is {new} now; the old name goes with the next release", FutureWarning, stacklevel=2)
        return found

    return find
