"""One sweep on many machines: each process takes units, cells that train together, under a lock that ends with the process.

``claims/UNIT`` holds the lock of a unit and its own ``sweep.json``, so that whoever goes on with it trains it as it was begun.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint import lock_folder, versions
from bap_jax.errors import SettingError
from bap_jax.sweeps.execute import BOOK, Failure, Job, SweepCell, Together, Told, cells_of, failure_in, groups_in, state_of
from bap_jax.sweeps.grid import Sweep

CLAIMS = "claims"


class Shared(NamedTuple):
    """What came of a part of a sweep: the evaluations of all its cells that are finished, by whomever; those that failed here;
    and how many are not done yet.
    """

    records: list[dict[str, Any]]
    failed: dict[str, Failure]
    to_do: int


def parse_shard(text: str) -> tuple[int, int]:
    """``I/N``, part I of N, from 0.

    Raises:
      SettingError: anything else.

    Example:
      >>> parse_shard("0/4")
      (0, 4)
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise SettingError("--shard", text, "I/N with I from 0 to N - 1, such as 0/4")
    return int(found[1]), int(found[2])


def run_shared(
    sweep: Sweep,
    out: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    together: Together = "auto",
    devices: int | None = 1,
    data_dir: str | None = None,
    told: Told | None = None,
) -> Shared:
    """Trains and evaluates what nobody else has, of a part of a sweep; returns when nothing is left to take.

    A unit is what may train together, so that who trains what changes no result. Its lock is the file system's own: it ends with
    the process, however that ends, and the next one that comes by goes on from the checkpoints.

    Args:
      sweep, together, devices, data_dir, told: as for :func:`bap_jax.sweeps.execute.run_sweep`.
      out: the sweep's folder, seen by all who share it.
      shard: (I, N): only every N-th unit, from the I-th on.

    Raises:
      SettingError: a sweep that makes no sense; a process that does not share sweeps into the folder.
      Interrupted: SIGINT or SIGTERM came; the states are saved.
    """
    cells = cells_of(sweep, out, data_dir)
    Path(out).mkdir(parents=True, exist_ok=True)
    with lock_folder(str(out), shared=True):
        whole = Job(cells, Path(out), together, devices, told)
        units = with_starts(whole.arranged(whole.keys(cells)))[shard[0] :: shard[1]]
        failed: dict[str, Failure] = {}
        done: set[str] = set()
        took = True
        while took:  # until a round finds all that is left in the hands of others
            took = False
            for unit in units:
                name = unit_name(unit)
                if name in done:
                    continue
                found = _claimed(unit, name, whole, len(done))
                if found is None:
                    continue
                failed |= found
                done.add(name)
                took = True
                write_book(cells, Path(out))
        return _gathered(cells, Path(out), failed)


def with_starts(units: Sequence[Sequence[SweepCell]]) -> list[list[SweepCell]]:
    """Units of which no two begin with the same network of the sweep's own: who trains it does all that begins with it."""
    found: list[list[SweepCell]] = []
    for unit in units:
        starts = {cell.start[0] for cell in unit if cell.start is not None}
        same = [other for other in found if starts & {cell.start[0] for cell in other if cell.start is not None}]
        merged = [cell for other in same for cell in other] + list(unit)
        if same:
            found[found.index(same[0])] = merged
            found = [other for other in found if not any(other is one for one in same[1:])]
        else:
            found.append(merged)
    return found


def unit_name(unit: Sequence[SweepCell]) -> str:
    """The folder of a unit's claim: the same in every process that is given the sweep.

    Example:
      >>> from bap_jax.runs.settings import Settings
      >>> len(unit_name([SweepCell("digits-mlp/blind", Settings(), Path("x"), ())]))
      16
    """
    return hashlib.sha256("\n".join(cell.name for cell in unit).encode()).hexdigest()[:16]


def _claimed(unit: Sequence[SweepCell], name: str, whole: Job, before: int) -> dict[str, Failure] | None:
    """Does a unit, unless another process has it: then None."""
    folder = whole.out / CLAIMS / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = lock_folder(str(folder))
    except SettingError as error:
        if "no other process" in error.expected:
            return None
        raise

    def told(done: float, total: int, what: str) -> None:
        if whole.told:
            whole.told(before + done, len(whole.cells), what)

    with lock:
        job = Job(unit, whole.out, whole.together, whole.devices, told, folder / BOOK)
        job.data = whole.data  # of the unit before; often the same
        return job.go().failed


def _gathered(cells: Sequence[SweepCell], out: Path, failed: dict[str, Failure]) -> Shared:
    job = Job(cells, out, "loop", 1, None)
    records, to_do = [], 0
    for cell in cells:
        found = [job.stored(cell, plan) for plan in cell.plans]
        if all(found):
            records += [record for record in found if record]
        else:
            to_do += cell.name not in failed
    return Shared(records, failed, to_do)


def write_book(cells: Sequence[SweepCell], out: Path) -> None:
    """The sweep's book, from what the folders hold, whoever did it: true when it is written, and whole at every moment."""
    lines: dict[str, dict[str, Any]] = {}
    for cell in cells:
        state = state_of(cell)
        lines[cell.name] = {"state": state if state in ("finished", "to do") else "to do"}
        note = failure_in(cell.folder) if state.startswith("failed") else None
        if note is not None:
            lines[cell.name] = {"state": "failed"} | {name: note.get(name) for name in ("error", "message", "while")}
    groups = [group for book in sorted((out / CLAIMS).glob(f"*/{BOOK}")) for group in groups_in(book)]
    write_atomic(out / BOOK, json_text({"cells": lines, "groups": groups, "versions": versions()}, indent=1) + "\n")
