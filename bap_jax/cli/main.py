"""The command line, `bap`: training, evaluating, reporting, making small, taking in and out, sweeps, benchmarks.

Only here are process-wide things set (number of CPU devices, XLA's threads), before jax makes its first device, and said on
screen. The commands and their arguments are in ``arguments.py``, what they do in ``commands/``.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import tyro

import bap_jax
from bap_jax.cli import arguments as spoken
from bap_jax.cli import distributed
from bap_jax.cli.output import FLAGS, as_json, speaking, split_flags, tell
from bap_jax.cli.slots import HELP, first_look, given_value, renamed, train_with, with_network
from bap_jax.errors import CheckpointError, DataError, NonFiniteError, RunWarning, SettingError, one_line
from bap_jax.runs.settings import Settings
from bap_jax.runs.signals import Interrupted
from bap_jax.runs.slots import SLOTS

INTERRUPTED = 130  # the exit status of a command that was ended from the keyboard
EPILOG = """Every command takes --quiet (no progress) and --json (one object on standard output, all else on standard error).
Exit status: 0 done; 1 a check, a cell or a comparison failed; 2 something was not as it has to be; 3 the loss was no longer
finite; 130 and 143 stopped by SIGINT and SIGTERM, the state saved. bap --version tells versions;
bap --tyro-print-completion bash (or zsh) prints a script for completion: docs/command-line.md."""


def main(arguments: list[str] | None = None) -> None:
    """Reads the command, runs it, and turns the errors a user can mend into one line and exit status 2.

    With `--json` what came of it is one object on standard output: the command, its exit status, and an error or what it found.
    """
    arguments, chosen = split_flags(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["--version"]:
        print(as_json(_versions()) if chosen.json else " ".join(f"{name} {version}" for name, version in _versions().items()))
        sys.exit(0)
    if distributed.is_parent(arguments):
        sys.exit(distributed.watch([*arguments, *(flag for flag in FLAGS if getattr(chosen, flag.removeprefix("--")))]))
    with speaking(chosen) as said:
        status = _status(arguments)
    if chosen.json:
        print(as_json({"command": "".join(arguments[:1]), "status": status, **said.told}))
    sys.exit(status)


def _status(arguments: list[str]) -> int:
    """Runs a command; its exit status."""
    shown, warnings.showwarning = warnings.showwarning, _showing(warnings.showwarning)
    ignored, sys.unraisablehook = sys.unraisablehook, _ignoring(sys.unraisablehook)
    alone = True  # whether the others of a run on several hosts do not end, too
    try:
        status = _run(read(arguments), arguments)
        alone = False
    except (SettingError, DataError, CheckpointError, OSError) as error:
        status = _say("error", str(error), 2)
    except NonFiniteError as error:
        status = _say("stopped", str(error), 3)
    except KeyboardInterrupt as stopped:
        status = _say("stopped", "interrupted", getattr(stopped, "status", INTERRUPTED))
    except Exception as error:
        if not distributed.is_child():
            raise
        status = distributed.failed(error)
    finally:
        warnings.showwarning, sys.unraisablehook = shown, ignored
    if alone and distributed.is_child():
        distributed.leave(status)
    return status


def _versions() -> dict[str, str]:
    names = "bap_jax", "jax", "flax", "optax", "numpy"
    found = {"bap_jax": bap_jax.__version__} | {name: importlib.metadata.version(name) for name in names[1:]}
    return found | {"python": sys.version.split()[0]}


def _check_command(arguments: Sequence[str]) -> None:
    """Refuses a first word that is no command, with the one that was probably meant."""
    word = "".join(arguments[:1])
    known = [part.name for one in get_args(spoken.command()) for part in get_args(one)[1:] if getattr(part, "name", None)]
    if word and not word.startswith("-") and word not in known:
        near = difflib.get_close_matches(word, known, n=1)
        raise SettingError("COMMAND", word, f"one of {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else ""))


def read(arguments: Sequence[str]) -> Any:
    """The command that a command line gives. Of `bap train` the slots are read first, of `bap import` and `bap bench` the
    network: see :mod:`bap_jax.cli.slots`.

    Raises:
      SettingError: a slot that cannot be filled so; a ``--config`` that is not there, or names code that is not trusted.
    """
    _check_command(arguments)
    other = {"import": spoken.Import, "bench": spoken.Bench}.get("".join(arguments[:1]))
    if other is not None:
        return _read(with_network(other, arguments), arguments)
    if list(arguments[:1]) != ["train"]:
        return _read(spoken.Train, arguments)
    helping = any(word in HELP for word in arguments)
    path = given_value(arguments, "config")
    stored = None if path is None or helping else _stored(Path(path))
    reading = first_look(arguments, stored)
    if helping:
        return _read(train_with(reading, only_named=True), reading.arguments)
    if reading.config is not None and reading.settings.names_code():
        from bap_jax.runs.trust import CODE, Trust, check_trust, names_in

        trust = Trust("--trust" in arguments, names_in(arguments))
        uses = CODE if given_value(arguments, "data") is None else tuple(SLOTS)
        check_trust(reading.settings.as_dict(), reading.config.parent, trust, uses, file=reading.config.name)
    new, told = renamed(reading.arguments, reading.settings)
    if told:
        names = ", ".join(f"{old} is {now}" for old, now in told.items())
        print(f"bap: note: {names} now; old names go with the next release", file=sys.stderr)
    command = _read(train_with(reading), new)
    if stored is None:
        return command
    started = [(one.init_from, one.init_checkpoint, one.init_masks) for one in (stored, command)]
    if started[0] != started[1] and command.init_digest == stored.init_digest:  # it was that of something else
        return dataclasses.replace(command, init_digest=None)
    return command


def _read(command: type, arguments: Sequence[str]) -> Any:
    description = f"{(__doc__ or '').partition(chr(10) * 2)[0]}\n\n{EPILOG}"
    return tyro.cli(spoken.command(command), args=list(arguments), prog="bap", description=description)


def _stored(path: Path) -> Settings:
    """The settings of a ``--config``, the defaults of a command line: what is given there counts, also where it is what the
    setting is by default.
    """
    from bap_jax.runs.stored import settings_in

    try:
        return settings_in(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise SettingError("--config", str(path), "a config.json, as a run folder holds one") from None


def _run(command: Any, arguments: Sequence[str]) -> int:
    from bap_jax.runs.trust import Trust, names_in

    logging.getLogger("absl").addFilter(_not_said_here)
    command.set_up()
    try:
        return command(Trust(getattr(command, "trust", False), names_in(arguments)))
    except Interrupted as stopped:
        from bap_jax.cli.screen import console

        tell(stopped=str(stopped))
        console().print(str(stopped), style="yellow", highlight=False)
        return stopped.status


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
    tell(**{kind: one_line(text)})
    print(f"bap: {kind}: {one_line(text)}", file=sys.stderr)
    return status
