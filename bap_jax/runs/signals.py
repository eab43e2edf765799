"""Being asked to stop: signals, noticed between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

TWICE = 1.0  # seconds: a scheduler signals a process and the one that started it, which passes it on; that is once


class Interrupted(Exception):
    """The run was asked to stop (SIGINT or SIGTERM) and saved its state; ``--resume`` goes on.

    Attributes:
      status: 128 and the number of the signal, as a shell has it: 130 for SIGINT, 143 for SIGTERM, also where another
        host was asked.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.status = 128 + (_last[0] if _last else signal.SIGTERM)  # another host was asked


_last: list[int] = []  # the signal that asked last


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask the loop to stop after the step it is in; a second one ends it at once."""
    asked: list[float] = []
    _last.clear()

    def ask(number, frame):
        if asked and time.monotonic() - asked[0] < TWICE and number in _last:
            return
        if asked:
            raise KeyboardInterrupt
        asked.append(time.monotonic())
        _last.append(number)
        os.write(2, b"bap: stopping after this step and saving; once more to stop at once\n")  # print is not safe here

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: its owner decides what signals mean
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
