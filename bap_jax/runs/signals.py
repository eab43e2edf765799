"""Being asked to stop: signals, noticed between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator


class Interrupted(Exception):
    """The run was asked to stop (SIGINT or SIGTERM) and saved its state; ``--resume`` goes on."""


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask the loop to stop after the step it is in; a second one ends it at once."""
    asked: list[int] = []

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
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
