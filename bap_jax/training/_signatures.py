"""Slots of the user's own that were written before ``info``: for one release they are called as they were."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from bap_jax.types import RunInfo


def takes(function: Callable, name: str) -> bool:
    """Whether a function may be called with an argument of that name.

    Example:
      >>> takes(lambda key, params, masks=None: None, "masks"), takes(lambda key, **options: None, "masks"), takes(print, "masks")
      (True, True, False)
    """
    parameters = inspect.signature(function).parameters.values()
    return any(one.name == name or one.kind is one.VAR_KEYWORD for one in parameters)


def initial(slot: str, init: Callable, *given: Any, info: RunInfo, before: tuple[Any, ...]) -> Any:
    """The first state of a slot.

    Args:
      slot: its name, for the warning.
      init: the slot's; told apart by whether it has a parameter ``info``.
      given: what it is called with besides ``info``.
      info: what it is told.
      before: what it was called with before there was an ``info``.

    Returns:
      What it returns.

    Example:
      >>> initial("loss", lambda params, info: info, 1, info=2, before=(3,))
      2
    """
    if takes(init, "info"):
        return init(*given, info=info)
    wanted = ", ".join([*list(inspect.signature(init).parameters)[: len(given)], "info"])
    told = f"a {slot} whose init takes no `info` is called as before for one more release; write init({wanted})"
    warnings.warn(told, FutureWarning, stacklevel=3)
    return init(*before)
