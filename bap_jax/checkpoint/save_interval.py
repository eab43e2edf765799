"""When to save: every epoch or every five seconds, whichever comes later."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from bap_jax.errors import SettingError


class SaveInterval:
    """Says when the next checkpoint is due.

    A save is due when at least ``steps`` steps *and* at least ``seconds`` seconds have gone by since the last one (or since the
    start). Short epochs so do not spend their time on saving, and long ones are saved as they end. On several hosts the first
    one's clock decides for all of them, because saving is collective.

    Args:
      steps: steps between two saves at least, usually one epoch.
      seconds: seconds between two saves at least.
      start: the step that training starts or resumes from.
      clock: returns seconds; for tests.

    Raises:
      SettingError: ``steps`` is below 1 or ``seconds`` negative.

    Example:
      >>> seconds = iter([0.0, 2.0, 7.0])
      >>> due = SaveInterval(steps=100, clock=lambda: next(seconds)).due
      >>> due(50), due(100), due(101)
      (False, False, True)
    """

    def __init__(self, steps: int, seconds: float = 5.0, *, start: int = 0, clock: Callable[[], float] = time.monotonic):
        if steps < 1:
            raise SettingError("steps", steps, "at least 1")
        if not seconds >= 0:
            raise SettingError("seconds", seconds, "0 or more")
        self._steps, self._seconds, self._clock = steps, seconds, clock
        self._last_step, self._last_time = start, clock()

    def due(self, step: int) -> bool:
        """Whether to save now; a yes starts the next interval.

        Args:
          step: how many steps have been done.

        Returns:
          True when the checkpoint of ``step`` is due.
        """
        if step - self._last_step < self._steps:
            return False
        now = self._clock()
        self._last_time = min(self._last_time, now)  # a clock that was set back would else save nothing until it caught up
        if not self._agreed(now - self._last_time >= self._seconds):
            return False
        self._last_step, self._last_time = step, now
        return True

    @staticmethod
    def _agreed(mine: bool) -> bool:
        if jax.process_count() == 1:
            return mine
        return bool(multihost_utils.broadcast_one_to_all(np.asarray(mine)))
