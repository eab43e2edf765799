"""Where a command's words go: `--quiet` leaves progress and notes out, `--json` makes one object of what came of it."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FLAGS = ("--quiet", "--json")


@dataclasses.dataclass
class Output:
    """How this call of the command line speaks, and what it has to tell in the end."""

    quiet: bool = False
    json: bool = False
    words: tuple[str, ...] = ()
    told: dict[str, Any] = dataclasses.field(default_factory=dict)


_OUTPUT: contextvars.ContextVar[Output | None] = contextvars.ContextVar("output", default=None)


def output() -> Output:
    """Of the command that is running; outside of one, the ordinary way."""
    return _OUTPUT.get() or Output()


def command_line() -> str:
    """The command that is running, as a person types it; nothing outside of one."""
    words = output().words
    return shlex.join(("bap", *words)) if words else ""


def tell(**values: Any) -> None:
    """Adds to the object that `--json` prints; several calls make one object.

    Example:
      >>> from pathlib import Path
      >>> with speaking(Output(json=True)) as said:
      ...     tell(accuracy=0.5, folder=Path("runs/x"))
      >>> print(as_json(said.told))
      {"accuracy": 0.5, "folder": "runs/x"}
    """
    output().told.update(values)


def split_flags(arguments: Sequence[str]) -> tuple[list[str], Output]:
    """A command line without `--quiet` and `--json`, which every command takes at any place, and what they say.

    Example:
      >>> split_flags(["evaluate", "runs/x", "--json"])
      (['evaluate', 'runs/x'], Output(quiet=False, json=True, words=('evaluate', 'runs/x'), told={}))
    """
    rest = [word for word in arguments if word not in FLAGS]
    return rest, Output(quiet="--quiet" in arguments, json="--json" in arguments, words=tuple(rest))


@contextlib.contextmanager
def speaking(chosen: Output) -> Iterator[Output]:
    """For the time of a command: with `--json` everything that is printed goes to standard error."""
    token = _OUTPUT.set(chosen)
    try:
        with contextlib.redirect_stdout(sys.stderr) if chosen.json else contextlib.nullcontext():
            yield chosen
    finally:
        _OUTPUT.reset(token)


def as_json(values: Mapping[str, Any]) -> str:
    """One line of JSON; what is not finite is null, paths are text."""
    return json.dumps(_plain(values), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # of numpy or jax, neither of which is loaded for this
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
