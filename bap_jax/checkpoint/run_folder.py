"""A run folder: everything a run was told and everything it found, in one place.

========================  =====================================================================
``config.json``           the full configuration, from which the run can be repeated
``versions.json``         the versions, the platform and the devices that it ran with
``metrics.jsonl``         one JSON object a line, each with its ``step``
``checkpoints/``          see :class:`bap_jax.checkpoint.Checkpoints`
========================  =====================================================================
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import metadata
from typing import IO, Any

import jax
import numpy as np

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint.json_file import check_json, dotted_entries, excerpt, read_json, write_json
from bap_jax.checkpoint.manager import CHECKPOINTS
from bap_jax.errors import SettingError, StorageError
from bap_jax.mathematics.convolution import conv_kind

CONFIG, VERSIONS, METRICS = "config.json", "versions.json", "metrics.jsonl"
_LOCK = ".lock"
_PACKAGES = {
    "bap_jax": "bap_jax",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "numpy": "numpy",
}


class RunFolder:
    """An open run folder; made by :func:`open_run`.

    On several hosts only the first writes: the methods of the others do nothing.

    Attributes:
      folder: its absolute path.
      resumed: whether the folder held a run already.
      changed_versions: what differs from the versions the run was started with, as ``name -> (then, now)``. Bit-identical
        continuation is promised only where this is empty.
    """

    def __init__(self, folder: str, resumed: bool, lock: IO[bytes] | None):
        self.folder, self.resumed, self._lock = folder, resumed, lock
        self.changed_versions: dict[str, tuple[Any, Any]] = {}
        self._metrics: IO[bytes] | None = None

    @property
    def checkpoints(self) -> str:
        """The folder for the checkpoints."""
        return os.path.join(self.folder, CHECKPOINTS)

    def log(self, step: int, **metrics: Any) -> None:
        """Append a line to ``metrics.jsonl``.

        Log a step's lines *before* its checkpoint is saved: :meth:`truncate_after` keeps the lines up to the restored step,
        so that a resumed run then has each line once.

        Args:
          step: how many steps have been done.
          **metrics: numbers, scalar arrays, strings, or lists of them; one that is not finite is written as null. A key for
            anything read from a clock contains ``time``.

        Raises:
          SettingError: a value that JSON cannot hold.
          StorageError: the line cannot be written, for instance to a full disk.
        """
        line = json_text({"step": int(step)} | {name: check_json(_plain(value), name) for name, value in metrics.items()})
        if self._lock is None:
            return
        path = os.path.join(self.folder, METRICS)
        try:
            if self._metrics is None:
                self._metrics = open(path, "ab")  # noqa: SIM115
            self._metrics.write(line.encode() + b"\n")
            self._metrics.flush()
        except OSError as error:
            self._drop_metrics()
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error

    def truncate_after(self, step: int) -> None:
        """Cut the lines of ``metrics.jsonl`` after a step, atomically; with a step of -1, all lines.

        Args:
          step: the step that a checkpoint was restored from.
        """
        path = os.path.join(self.folder, METRICS)
        if self._lock is None or not os.path.exists(path):
            return
        self._close_metrics()
        write_atomic(path, b"".join(line for line, entry in _entries(path) if entry["step"] <= step))

    def close(self) -> None:
        """Close the metrics and let another process have the folder."""
        self._close_metrics()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _drop_metrics(self) -> None:
        """Let go of a file that what it still holds cannot be written to: closing tries once more, and fails once more."""
        try:
            self._close_metrics()
        except OSError:
            self._metrics = None

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    resume: bool = False,
    *,
    may_differ: Collection[str] = (),
    migrated: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> RunFolder:
    """Open a folder for a new run, or to go on with one.

    The folder is locked until it is closed or the process ends, however it ends.

    Args:
      folder: a path in the file system; made if it is not there.
      config: the full configuration, nested mappings of JSON values.
      resume: go on with the run in the folder; an empty or absent folder starts one.
      may_differ: dotted names of settings that a resumed run may have otherwise, such as ``devices``; a name stands for
        everything below it. The stored configuration stays as it was.
      migrated: reads a stored configuration as this version would have written it.

    Returns:
      The open folder.

    Raises:
      SettingError: the folder cannot be written, is in use by another process, is not empty and ``resume`` is False, holds
        something else than a run, or holds a run with another configuration (the first setting that differs is named).

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with open_run(folder, {"seed": 0}) as run:
      ...     run.log(1, loss=0.5)
      >>> read_metrics(folder)
      [{'step': 1, 'loss': 0.5}]
      >>> open_run(folder, {"seed": 1}, resume=True)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: seed = 1: expected 0, with which the run in ... was started, or another --out
    """
    if "://" in os.fspath(folder):
        raise SettingError("--out", os.fspath(folder), "a path in the file system; checkpoints alone may go to an address")
    path = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    settings = check_json(config, "config")
    if jax.process_index() != 0:
        return RunFolder(path, os.path.exists(os.path.join(path, CONFIG)), None)
    _make(path)
    _check_occupied(path, resume)
    lock = lock_folder(path)
    try:
        _check_occupied(path, resume)  # once more: another process may have been in between
        run = RunFolder(path, bool(_visible(path)), lock)
        if run.resumed:
            _check_config(path, settings, may_differ, migrated)
        else:
            write_json(os.path.join(path, CONFIG), settings)
        run.changed_versions = _note_versions(path)
        _cut_partial_line(os.path.join(path, METRICS))
    except BaseException:
        lock.close()
        raise
    return run


def check_run(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    resume: bool = False,
    *,
    may_differ: Collection[str] = (),
    migrated: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Refuse now what :func:`open_run` would refuse after data was read and a network built; touches nothing.

    Args:
      folder, config, resume, may_differ, migrated: as for :func:`open_run`, which looks again.

    Raises:
      SettingError: the folder is not empty and ``resume`` is False, or holds something else, or a run with another configuration.

    Example:
      >>> import tempfile
      >>> check_run(tempfile.mkdtemp(), {"seed": 0})
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    if "://" in os.fspath(folder) or not os.path.exists(path):
        return
    _check_occupied(path, resume)
    if os.path.exists(os.path.join(path, CONFIG)):
        _check_config(path, check_json(config, "config"), may_differ, migrated)


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of the run in a folder.

    Args:
      folder: a run folder.

    Returns:
      The configuration as nested dicts.

    Raises:
      SettingError: the folder holds no run, or its configuration is damaged.
    """
    try:
        return read_json(os.path.join(os.fspath(folder), CONFIG))
    except (FileNotFoundError, NotADirectoryError):
        raise SettingError("run folder", os.fspath(folder), f"a folder with a {CONFIG}, as bap train writes it") from None


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``; a last line that a killed process left unfinished is left out.

    Args:
      folder: a run folder; the run may still be going on.

    Returns:
      One dict a line, in order; empty if nothing was logged yet.

    Raises:
      SettingError: a line other than the last is damaged.
    """
    path = os.path.join(os.fspath(folder), METRICS)
    return [entry for _, entry in _entries(path)] if os.path.exists(path) else []


def versions() -> dict[str, Any]:
    """What a run depends on besides its configuration: versions, platform, devices, the form of convolutions, and
    the commit if there is one.

    Returns:
      A flat dict of JSON values, e.g. ``{"python": "3.12.4", "jax": "0.10.2", ..., "device_count": 2}``.

    Example:
      >>> "jaxlib" in versions()
      True
    """
    found: dict[str, Any] = {"python": platform.python_version()}
    for name, package in _PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:  # bap_jax run from a clone that was never installed
            from bap_jax import __version__

            found[name] = __version__ if name == "bap_jax" else None
    device = jax.devices()[0]
    found |= {"platform": platform.platform(), "backend": device.platform, "device_kind": device.device_kind}
    found |= {"device_count": jax.device_count(), "process_count": jax.process_count(), "conv": conv_kind(), "commit": _commit()}
    return found


def _commit() -> str | None:
    """The commit of the clone that this package is imported from, with ``-dirty`` behind it where files were changed."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        inside = subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, timeout=10)
        if inside.returncode:  # installed somewhere below a repository that is not this one
            return None
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        answer = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _make(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise SettingError("--out", path, f"a folder that can be written ({error.strerror})") from error


def _visible(path: str) -> list[str]:
    # Names with a dot are this module's lock and temporary files.
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def _check_occupied(path: str, resume: bool) -> None:
    try:
        names = _visible(path)
    except OSError as error:
        raise SettingError("--out", path, f"a folder that can be read ({error.strerror})") from error
    if names and not resume:
        raise SettingError("--out", path, "an empty folder; --resume goes on with the run in it, another --out starts a new one")
    if names and CONFIG not in names:
        raise SettingError("--out", path, f"an empty folder or a run's folder: there is {names[0]} but no {CONFIG}")


def lock_folder(path: str, *, shared: bool = False) -> IO[bytes]:
    """Keep other processes out of a folder until the file that is returned is closed or the process ends, however it ends.

    Args:
      path: the folder.
      shared: let those in that ask for it shared, too.

    Raises:
      SettingError: another process has it, or it cannot be written.
    """
    try:
        file = open(os.path.join(path, _LOCK), "ab")  # noqa: SIM115
    except OSError as error:
        raise SettingError("--out", path, f"a folder that can be written ({error.strerror})") from error
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SettingError("--out", path, "a folder that no other process is writing into") from None
    except OSError as error:  # a file system without locks
        file.close()
        raise SettingError("--out", path, f"a folder in a file system that can lock files ({error.strerror})") from error
    return file


def _check_config(
    path: str,
    settings: dict[str, Any],
    may_differ: Iterable[str],
    migrated: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    stored, given = dict(dotted_entries(migrated(read_config(path)))), dict(dotted_entries(settings))
    for name in [*stored, *(name for name in given if name not in stored)]:
        if any(name == allowed or name.startswith(f"{allowed}.") for allowed in may_differ):
            continue
        then, now = stored.get(name, _Absent()), given.get(name, _Absent())
        if repr(then) != repr(now):  # repr, so that nan equals nan and 1 differs from 1.0
            raise SettingError(name, now, f"{then!r}, with which the run in {path} was started, or another --out")


class _Absent:
    def __repr__(self) -> str:
        return "(not set)"


def _note_versions(path: str) -> dict[str, tuple[Any, Any]]:
    """Write the versions at a run's start, and add those it is resumed with where they differ."""
    now, file_path = versions(), os.path.join(path, VERSIONS)
    if not os.path.exists(file_path):
        write_json(file_path, now)
        return {}
    try:
        then = read_json(file_path)
    except SettingError as error:
        raise SettingError(error.name, error.value, f"{error.expected}; without it, the versions of now are noted") from None
    resumed = then.pop("resumed_with", [])
    changed = {name: (then.get(name), value) for name, value in now.items() if then.get(name) != value}
    if changed and (not resumed or resumed[-1] != now):
        write_json(file_path, then | {"resumed_with": [*resumed, now]})
    return changed


def _entries(path: str) -> list[tuple[bytes, dict[str, Any]]]:
    """The complete lines of a metrics file, raw and read."""
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            entry["step"]
        except (ValueError, KeyError, TypeError):
            raise SettingError(f"{path}, line {number}", excerpt(line.strip()), "a JSON object with a step") from None
        found.append((line, entry))
    return found


def _cut_partial_line(path: str) -> None:
    if os.path.exists(path):
        with open(path, "rb") as file:
            content = file.read()
        if content and not content.endswith(b"\n"):
            write_atomic(path, content[: content.rfind(b"\n") + 1])


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (jax.Array, np.ndarray, np.generic)) else value
