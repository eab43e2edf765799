"""Being asked to stop, or to save and go on: signals, noticed between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

TWICE = 1.0  # seconds: a scheduler signals a process and the one that started it, which passes it on; that is once
# What a scheduler sends some time before it ends a job (`#SBATCH --signal=USR1@120`, submitit's SIGUSR2). Windows has neither.
SAVING = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class Interrupted(Exception):
    """The run was asked to stop (SIGINT or SIGTERM) and saved its state; ``--resume`` goes on.

    Attributes:
      status: 128 and the number of the signal, as a shell has it: 130 for SIGINT, 143 for SIGTERM, also where another
        host was asked.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.status = 128 + (_last[0] if _last else signal.SIGTERM)  # another host was asked


class StopAtOnce(KeyboardInterrupt):
    """Asked a second time; ``status`` is 128 and the number of the signal."""

    def __init__(self, number: int):
        super().__init__()
        self.status = 128 + number


_last: list[int] = []  # the signal that asked last


class Asked:
    """What signals have asked for; called, whether it is to stop.

    Args:
      among: brings an answer to all hosts of a run alike, e.g. :func:`bap_jax.parallel.agreed` with the run's mesh.
    """

    def __init__(self, among: Callable[[Callable[[], bool]], Callable[[], bool]] = lambda answer: answer) -> None:
        self._stop: float | None = None
        self._save = False
        self.agree(among)

    def agree(self, among: Callable[[Callable[[], bool]], Callable[[], bool]]) -> Asked:
        """From now on all hosts hear what one of them was asked for."""
        self._stopping, self._saving = among(lambda: self._stop is not None), among(self._asked_to_save)
        return self

    def __call__(self) -> bool:
        return self._stopping()

    def save(self) -> bool:
        """Whether the state is to be saved, told once for each time that it was asked for."""
        return self._saving()

    def _asked_to_save(self) -> bool:
        asked, self._save = self._save, False
        return asked

    def on_stop(self, number: int, frame: object) -> None:
        """Handles SIGINT and SIGTERM."""
        if self._stop is not None and time.monotonic() - self._stop < TWICE and number in _last:
            return
        if self._stop is not None:
            raise StopAtOnce(number)
        self._stop = time.monotonic()
        _last.append(number)
        os.write(2, b"bap: stopping after this step and saving; once more to stop at once\n")  # print is not safe here

    def on_save(self, number: int, frame: object) -> None:
        """Handles SIGUSR1 and SIGUSR2."""
        self._save = True
        os.write(2, b"bap: saving after this step\n")


@contextlib.contextmanager
def stop_signals() -> Iterator[Asked]:
    """SIGINT and SIGTERM ask the loop to stop after the step it is in; a second one ends it at once. SIGUSR1 and SIGUSR2 ask it
    to save after that step, and to go on.
    """
    asked = Asked()
    _last.clear()
    handlers = {signal.SIGINT: asked.on_stop, signal.SIGTERM: asked.on_stop, **dict.fromkeys(SAVING, asked.on_save)}
    try:
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    except ValueError:  # not the main thread: its owner decides what signals mean
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
