"""The command line: `bap train`, `evaluate`, `report`, `export`, `import`, `data`, `sweep`, `bench`, `demo`.

Only here are process-wide things set (number of CPU devices, XLA's threads), before jax makes its first device, and said on
screen. The arguments are in ``arguments.py``, what the commands do in ``commands.py``.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from bap_jax.cli import arguments as spoken
from bap_jax.cli.process import set_up_process
from bap_jax.errors import CheckpointError, DataError, NonFiniteError, RunWarning, SettingError, one_line
from bap_jax.runs.stored import settings_in


def main(arguments: list[str] | None = None) -> None:
    """Reads the command, runs it, and turns the errors a user can mend into one line and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = tyro.cli(spoken.Command, args=arguments, prog="bap", description=__doc__.splitlines()[0])  # type: ignore[arg-type]
    shown, warnings.showwarning = warnings.showwarning, _showing(warnings.showwarning)
    ignored, sys.unraisablehook = sys.unraisablehook, _ignoring(sys.unraisablehook)
    try:
        if isinstance(command, spoken.Train) and command.config is not None:
            command = with_config(command, arguments)
        status = _run(command, arguments)
    except (SettingError, DataError, CheckpointError, OSError) as error:
        status = _say("error", str(error), 2)
    except NonFiniteError as error:
        status = _say("stopped", str(error), 3)
    except KeyboardInterrupt:
        status = _say("stopped", "interrupted", 130)
    finally:
        warnings.showwarning, sys.unraisablehook = shown, ignored
    sys.exit(status)


def with_config(command: spoken.Train, arguments: Sequence[str]) -> spoken.Train:
    """A train command read once more, the settings of its ``--config`` being the defaults: what was given on the command line
    counts, also where it is what the setting is by default.

    Args:
      command: as read without them.
      arguments: the command line that it was read from, ``train`` first.

    Raises:
      SettingError: the file is not there, or holds no settings; the error names it.
    """
    path = Path(command.config or "")
    try:
        stored = settings_in(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise SettingError("--config", str(path), "a config.json, as a run folder holds one") from None
    default = spoken.Train(out=command.out, config=command.config, **stored.as_dict())
    told = tyro.cli(spoken.Train, args=list(arguments[1:]), default=default, prog="bap train")
    started = [(one.init_from, one.init_checkpoint, one.init_masks) for one in (stored, told)]
    if started[0] != started[1] and told.init_digest == stored.init_digest:  # it was that of something else
        return dataclasses.replace(told, init_digest=None)
    return told


def _run(command, arguments: Sequence[str]) -> int:
    from bap_jax.cli import commands
    from bap_jax.runs.trust import Trust, names_in

    logging.getLogger("absl").addFilter(_not_said_here)
    if isinstance(command, (spoken.Train, spoken.Evaluate, spoken.Sweep, spoken.Demo, spoken.Bench)):
        set_up_process(None if isinstance(command, spoken.Bench) else command.devices)  # bench counts devices in other processes
    return commands.run(command, Trust(getattr(command, "trust", False), names_in(arguments)))


def _showing(otherwise: Callable[..., None]) -> Callable[..., None]:
    """How warnings are shown: ours in a line, what it says about whose code being of no use to a person."""

    def show(message, category, *where, **more) -> None:
        if issubclass(category, RunWarning):
            print(f"bap: note: {message}", file=sys.stderr)
        else:
            otherwise(message, category, *where, **more)

    return show


def _ignoring(otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What is shown of errors that nobody can catch: not those of writes that a save which failed has left behind."""

    def ignore(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            otherwise(unraisable)

    return ignore


def _not_said_here(record: logging.LogRecord) -> bool:
    """What orbax logs is for those who program it; an error in its thread, with its traceback, is raised here as well."""
    return record.levelno >= logging.ERROR and not record.exc_info


def _say(kind: str, text: str, status: int) -> int:
    print(f"bap: {kind}: {one_line(text)}", file=sys.stderr)
    return status
