"""Errors a user meets: each names the setting, its value and what would be right."""

from __future__ import annotations

import re
from typing import Any


def one_line(text: str) -> str:
    r"""A message as one line that a terminal can show: names out of files may hold line breaks and escape codes.

    Example:
      >>> one_line("no tensor \x1b[31mred\n  at all")
      'no tensor \\x1b[31mred at all'
    """
    text = re.sub(r"\s*[\r\n]+\s*", " ", text.strip())
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class SettingError(ValueError):
    """A setting, an argument or a piece of data is not what it has to be.

    Args:
      name: the setting, as the user wrote it (``final_sparsity``, ``--epsilon``, ``images``).
      value: what it was.
      expected: what would be right, as the end of "expected ...".

    Example:
      >>> raise SettingError("final_sparsity", 1.5, "a number in [0, 1]")
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: final_sparsity = 1.5: expected a number in [0, 1]
    """

    def __init__(self, name: str, value: Any, expected: str):
        super().__init__(one_line(f"{name} = {value!r}: expected {expected}"))
        self.name, self.value, self.expected = name, value, expected


class DataError(ValueError):
    """A data set is absent or unfit; the message names the command or the change that mends it."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class CheckpointError(ValueError):
    """A checkpoint does not fit what it is restored into; the message names the first leaf that differs."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class NonFiniteError(ArithmeticError):
    """Training met a NaN or an infinity; the message names the step and the last good checkpoint."""


class StorageError(OSError):
    """What a run has to keep cannot be written, say to a full disk; the message names the path and the last good step."""


class RunWarning(UserWarning):
    """Something about a run's files that a person has to know, while the work goes on; the command line says it in a line."""
