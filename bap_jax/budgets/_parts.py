"""Parts of training in steps."""

from __future__ import annotations

from bap_jax.errors import SettingError
from bap_jax.types import RunInfo


def check_part(name: str, value: float) -> None:
    """Raises SettingError unless a part of training is in [0, 1]."""
    if not 0 <= value <= 1:
        raise SettingError(name, value, "a part of training, in [0, 1]")


def in_steps(name: str, part: float, info: RunInfo) -> int:
    """How many of the phase's steps a part of it is.

    Raises:
      SettingError: nobody said how many steps the phase has.

    Example:
      >>> from bap_jax.types import Bounds
      >>> in_steps("warmup", 0.1, RunInfo(None, 3, Bounds(), (4,), num_examples=100, steps_per_epoch=10, num_steps=500))
      50
    """
    if info.num_steps < 1:
        raise SettingError("num_steps", info.num_steps, f"the number of steps that {name} is a part of: init_state(..., info=)")
    return round(part * info.num_steps)
