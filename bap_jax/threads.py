"""How many threads XLA needs where several CPU devices work together. Nothing here imports jax."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

_PER_DEVICE = 4
_FEWEST = 8


def cores() -> int:
    """How many processor cores this process may use.

    Example:
      >>> cores() >= 1
      True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_for(devices: int) -> int:
    """How many threads several CPU devices get along with; what ``NPROC`` should be.

    Example:
      >>> threads_for(2), threads_for(8)
      (8, 32)
    """
    return max(_FEWEST, _PER_DEVICE * devices)


def warn_of_few_threads(devices: int, current: Mapping[str, str] = os.environ) -> None:
    """Warns where a computation on so many CPU devices may wait for itself for ever.

    Devices that exchange numbers wait for each other, each in a thread. XLA has as many threads as cores, or as ``NPROC`` says
    when it makes its devices; where they are few, all of them may wait, and none is left to compute what they wait for.

    Args:
      devices: how many CPU devices of this process take part.
      current: the environment.

    Example:
      >>> warn_of_few_threads(8, current={"NPROC": "32"})
    """
    if devices < 2:
        return
    given = current.get("NPROC", "")
    wide = int(given) >= devices if given.isdigit() else cores() >= threads_for(devices)
    if wide:
        return
    warnings.warn(
        f"a step on {devices} CPU devices may wait for itself for ever: XLA has {given or cores()} threads. Set "
        f"NPROC={threads_for(devices)} in the environment before jax makes its first device (os.environ, before `import jax`), "
        "or use one device.",
        stacklevel=2,
    )
