"""Many runs as one job: what is finished is skipped, what was interrupted goes on, what fails is noted and the rest is done.

The folder of a sweep: ``cells/DATA-MODEL/ARM/PROCESS/SPARSITY/SEED``, each a run folder, with ``failed.json`` in one that
failed; ``sweep.json``, every cell with what has come of it and every group that trained together; and the report.
"""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint import lock_folder, read_json, versions
from bap_jax.data import Splits
from bap_jax.errors import SettingError
from bap_jax.evaluation import Progress
from bap_jax.runs.datasets import load_data, only_data
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.loop import check_out, finished_step, saved_step, train
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import stored_evaluation
from bap_jax.runs.run import prepare
from bap_jax.runs.session import Trained
from bap_jax.runs.settings import Settings
from bap_jax.runs.signals import Interrupted
from bap_jax.runs.trust import Trust, code_in
from bap_jax.sweeps.grid import Sweep, cell_name
from bap_jax.sweeps.vmapped import Choice, choose, group_key, train_together

CELLS, BOOK, FAILED = "cells", "sweep.json", "failed.json"
TRAINING = 0.75  # of a cell's work, for progress; the rest is evaluation
SAVE_SECONDS = 60.0
Together = Literal["auto", "loop", "vmap"]
Told = Callable[[float, int, str], None]  # (cells done, cells in all, what is being done)
Failure = dict[str, Any]


class SweepCell(NamedTuple):
    """One run of a sweep."""

    name: str
    settings: Settings
    folder: Path
    plans: tuple[AttackPlan, ...]
    start: tuple[Path, Settings] | None = None  # the network of the sweep's own that it begins with


class Swept(NamedTuple):
    """What came of a sweep: the evaluations, cell by cell and plan by plan, and the cells that failed."""

    records: list[dict[str, Any]]
    failed: dict[str, Failure]


def cells_of(sweep: Sweep, out: Path, data_dir: str | None = None) -> list[SweepCell]:
    """The cells of a sweep in their folders; none of them holds another run.

    Raises:
      SettingError: a cell that makes no sense, or whose folder holds a run with other settings.
    """
    cells = []
    for settings in sweep.cells():
        name = cell_name(settings)
        plans = sweep.plans_of(settings)
        begun, start = sweep.start_of(settings), None
        settings = dataclasses.replace(settings, data_dir=data_dir or settings.data_dir)
        if begun is not None:
            start = Path(out) / begun[0], dataclasses.replace(begun[1], data_dir=settings.data_dir)
            settings = dataclasses.replace(settings, init_from=str(start[0]))
        cells.append(SweepCell(name, settings, Path(out) / CELLS / name, plans, start))
    for cell in cells:
        if cell.start is not None and not cell.start[0].exists():
            cell.settings.check()
        elif not _never_began(cell.folder):
            check_out(cell.settings, cell.folder, resume=True)
    return cells


def trust_in(cells: Sequence[SweepCell]) -> Trust:
    """The names of code in a sweep: whoever gives the sweep has given them."""
    return Trust(names=frozenset(name for cell in cells for name in code_in(cell.settings.as_dict()).values()))


def _never_began(folder: Path) -> bool:
    """Whether a folder holds nothing but the note of a failure, from before the run could begin."""
    return folder.is_dir() and [path.name for path in folder.iterdir() if not path.name.startswith(".")] == [FAILED]


def state_of(cell: SweepCell) -> str:
    """What has become of a cell so far, in a few words."""
    step, finished = saved_step(cell.folder)
    if finished:
        missing = sum(stored_evaluation(cell.folder, plan, step or 0) is None for plan in cell.plans)
        return f"trained, {missing} evaluations to do" if missing else "finished"
    note = failure_in(cell.folder)
    if note is not None:
        return f"failed: {note['message']}"
    return "to do" if step is None else f"interrupted at step {step}"


def failure_in(folder: Path) -> Failure | None:
    """What is noted of a failure in a cell's folder, None if nothing is."""
    path = folder / FAILED
    if not path.exists():
        return None
    try:
        note = read_json(path)
    except SettingError:
        note = {}
    return {"message": f"{path} does not say with what"} | note


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    together: Together = "auto",
    devices: int | None = 1,
    data_dir: str | None = None,
    told: Told | None = None,
) -> Swept:
    """Trains and evaluates every cell that is not finished yet.

    Cells that differ only in what the train state carries share one compile. They train together under ``jax.vmap`` where that
    is faster, which a few steps of both tell; the choice is kept in ``sweep.json``, so that a sweep that was interrupted ends
    as it would have.

    Args:
      sweep: see :class:`bap_jax.sweeps.grid.Sweep`.
      out: the sweep's folder.
      together: ``auto`` measures; ``loop`` trains one cell after the other; ``vmap`` together whatever fits the memory.
      devices: how many devices; None for all. On several, cells train one after the other, each spread over all.
      data_dir: folder with prepared data sets.
      told: progress.

    Raises:
      SettingError: a sweep that makes no sense, or a folder that another process is sweeping into.
      Interrupted: SIGINT or SIGTERM came; the states are saved.
    """
    if together not in ("auto", "loop", "vmap"):
        raise SettingError("--together", together, "auto, loop or vmap")
    cells = cells_of(sweep, out, data_dir)
    Path(out).mkdir(parents=True, exist_ok=True)
    with lock_folder(str(out)) if jax.process_index() == 0 else contextlib.nullcontext():
        return Job(cells, Path(out), together, devices, told).go()


class Job:
    """One process's part of a sweep."""

    def __init__(
        self,
        cells: Sequence[SweepCell],
        out: Path,
        together: Together,
        devices: int | None,
        told: Told | None,
        book: Path | None = None,
    ):
        self.cells, self.out, self.together, self.devices, self.told = cells, out, together, devices, told
        self.book = book or out / BOOK
        self.by_name = {cell.name: cell for cell in cells}
        self.data, self.trust = _Data(), trust_in(cells)
        self.records: dict[str, list[dict[str, Any]]] = {}
        self.failed: dict[str, Failure] = {}
        self.finished = {cell.name: step for cell in cells if (step := finished_step(cell.folder)) is not None}
        self.work = {cell.name: TRAINING if cell.name in self.finished else 0.0 for cell in cells}
        self.shown = 0.0
        self.groups: list[dict[str, Any]] = groups_in(self.book) if self.book.exists() else []

    def go(self) -> Swept:
        for cell in self.cells:  # evaluated already: no data is needed for it
            stored = [self.stored(cell, plan) for plan in cell.plans]
            if all(stored):
                self.records[cell.name], self.work[cell.name] = [record for record in stored if record], 1.0
        keys = self.keys([cell for cell in self.cells if cell.name not in self.finished])
        for cell in self.cells:
            if _never_began(cell.folder):
                (cell.folder / FAILED).unlink()
        self.write_book()
        self.tell("begins")
        for cells in self.arranged(keys):
            self.train(cells, keys)
            for cell in cells:
                self.evaluate(cell)
        self.tell("done")
        return Swept([record for cell in self.cells for record in self.records.get(cell.name, [])], self.failed)

    def keys(self, cells: Sequence[SweepCell]) -> dict[str, Hashable | None]:
        """What may train together; refuses at once what does not fit its data."""
        keys: dict[str, Hashable | None] = {}
        for cell in sorted(cells, key=lambda cell: repr(only_data(cell.settings))):
            splits = self.data.of(cell.settings)
            try:
                run = prepare(cell.settings, splits, self.devices)
                for plan in cell.plans:
                    plan.check_radii(splits.test.bounds, splits.test.image_shape)
            except SettingError:
                raise
            except Exception:  # the user's own code: noted when it is this cell's turn
                keys[cell.name] = None
            else:
                keys[cell.name] = group_key(run) if self.together != "loop" else None
        return keys

    def arranged(self, keys: dict[str, Hashable | None]) -> list[list[SweepCell]]:
        """The cells, those that may train together side by side, in the order of the first of each."""
        arranged: dict[Hashable, list[SweepCell]] = {}
        for cell in self.cells:
            key = keys.get(cell.name)
            arranged.setdefault(cell.name if key is None else key, []).append(cell)
        return list(arranged.values())

    def train(self, cells: Sequence[SweepCell], keys: dict[str, Hashable | None]) -> None:
        """Trains the cells of one key, in groups: first those that were begun earlier, with the lanes they had."""
        waiting = [cell for cell in cells if cell.name not in self.finished and self.begun(cell)]
        if waiting and keys[waiting[0].name] is None:
            return self.train_one_by_one(waiting)
        for group in [group for group in self.groups if self.usable(group)]:
            mine = [cell for cell in waiting if cell.name in group["cells"]]
            waiting = [cell for cell in waiting if cell not in mine]
            self.train_group(group, mine)
        if waiting:
            for group in self.new_groups(waiting):
                self.train_group(group, [self.by_name[name] for name in group["cells"]])

    def begun(self, cell: SweepCell) -> bool:
        """Trains the network that a cell begins with, if it is the sweep's own and not there yet. False if it fails."""
        if cell.start is None or finished_step(cell.start[0]) is not None:
            return True
        folder, settings = cell.start
        self.tell(f"{folder.relative_to(self.out)}, for {cell.name}")
        try:
            splits = self.data.of(settings)
            train(settings, folder, splits=splits, resume=True, devices=self.devices, save_seconds=SAVE_SECONDS)
        except Interrupted as stopped:
            raise Interrupted(f"{str(stopped).partition(';')[0]} of {folder}; the same command goes on from there") from None
        except Exception as error:
            self.fail(cell, error, f"training {folder.relative_to(self.out)}")
            return False
        return True

    def usable(self, group: dict[str, Any]) -> bool:
        """Whether what an earlier process decided about a group holds for this one."""
        return group["device"] == _device() and (group["lanes"] > 1 or self.together == "auto")

    def new_groups(self, cells: Sequence[SweepCell]) -> list[dict[str, Any]]:
        """Decides how cells of one key train, and notes it before they do."""
        choice = Choice(1, why="nothing to train it with")
        if len(cells) > 1:
            self.tell(f"timing {len(cells)} cells together and one by one")
            choice = self.choice(cells)
        size = choice.lanes if choice.lanes > 1 else len(cells)
        groups = [
            {"cells": [cell.name for cell in cells[first : first + size]], "device": _device(), **choice._asdict()}
            for first in range(0, len(cells), size)
        ]
        self.groups += groups
        self.write_book()
        return groups

    def choice(self, cells: Sequence[SweepCell]) -> Choice:
        splits = self.data.of(cells[0].settings)
        runs = [prepare(cell.settings, splits, self.devices) for cell in cells]
        try:
            return choose(runs, sum(run.num_steps for run in runs), forced=self.together == "vmap")
        except Exception as error:  # one by one, each cell meets it itself, and has it noted
            return Choice(1, why=f"{type(error).__name__}: {error}")

    def train_group(self, group: dict[str, Any], cells: Sequence[SweepCell]) -> None:
        """Trains what is not finished of a group, each cell in the lane that it has always had."""
        if not cells:
            return None
        if group["lanes"] == 1:
            return self.train_one_by_one(cells)
        asked = {cell.name: cell for cell in cells}
        names = [name if name in asked else None for name in group["cells"]]
        names += [None] * (group["lanes"] - len(names))
        splits = self.data.of(cells[0].settings)
        runs = [prepare((asked[name] if name else cells[0]).settings, splits, self.devices) for name in names]
        outs = [asked[name].folder if name else None for name in names]

        def told(done: int, total: int, what: str) -> None:
            for name in asked:
                self.work[name] = max(self.work[name], TRAINING * done / total)
            self.tell(f"{cells[0].name} and {len(cells) - 1} more, {what}")

        try:
            results = train_together(runs, outs, told=told, save_seconds=SAVE_SECONDS)
        except Interrupted:
            raise
        except Exception as error:  # of all lanes: one by one they may go on from their checkpoints
            group |= {"lanes": 1, "why": f"{type(error).__name__}: {error}"}
            self.write_book()
            left = [cell for cell in cells if (step := finished_step(cell.folder)) is None or not self.finish(cell, step)]
            return self.train_one_by_one(left)
        for name, result in zip(names, results, strict=True):
            if name and isinstance(result, Trained):
                self.finish(asked[name], result.steps)
            elif name and isinstance(result, Exception):
                self.fail(asked[name], result, "training")

    def train_one_by_one(self, cells: Sequence[SweepCell]) -> None:
        for cell in cells:
            self.train_alone(cell)
            self.evaluate(cell)

    def train_alone(self, cell: SweepCell) -> None:
        def progress(done: int, total: int, metrics: dict[str, float]) -> None:
            self.work[cell.name] = max(self.work[cell.name], TRAINING * done / total)
            self.tell(f"{cell.name}, loss {metrics['loss']:.3f}")

        self.tell(cell.name)
        try:
            trained = train(
                cell.settings,
                cell.folder,
                splits=self.data.of(cell.settings),
                resume=True,
                devices=self.devices,
                progress=progress,
                save_seconds=SAVE_SECONDS,
            )
            self.finish(cell, trained.steps)
        except Interrupted as stopped:
            raise Interrupted(f"{str(stopped).partition(';')[0]} of {cell.name}; the same command goes on from there") from None
        except Exception as error:
            self.fail(cell, error, "training")

    def evaluate(self, cell: SweepCell) -> None:
        """Evaluates a trained cell with those of its plans that it has not been evaluated with."""
        if cell.name not in self.finished or cell.name in self.records:
            return
        records = []
        try:
            splits = self.data.of(cell.settings)
            for number, plan in enumerate(cell.plans):

                def progress(told: Progress, number: int = number) -> None:
                    done = (number + told.fraction) / len(cell.plans)
                    self.work[cell.name] = max(self.work[cell.name], TRAINING + (1 - TRAINING) * done)
                    self.tell(f"{cell.name}, {told.threat}")

                records.append(
                    self.stored(cell, plan)
                    or evaluate_run(
                        cell.folder,
                        plan,
                        dataset=getattr(splits, plan.split),
                        batch_size=500,
                        devices=self.devices,
                        progress=progress,
                        trust=self.trust,
                    )
                )
        except Exception as error:
            return self.fail(cell, error, "evaluating")
        self.record(cell, records)

    def stored(self, cell: SweepCell, plan: AttackPlan) -> dict[str, Any] | None:
        """An evaluation of the finished run that is in its folder already."""
        if cell.name not in self.finished or plan.checkpoint != "last":
            return None
        found = stored_evaluation(cell.folder, plan, self.finished[cell.name])
        return found and found | {"run": str(cell.folder)}  # the folder may have been moved since

    def record(self, cell: SweepCell, records: list[dict[str, Any]]) -> None:
        self.records[cell.name], self.work[cell.name] = records, 1.0
        (cell.folder / FAILED).unlink(missing_ok=True)
        self.write_book()
        self.tell(cell.name)

    def finish(self, cell: SweepCell, step: int) -> bool:
        self.finished[cell.name], self.work[cell.name] = step, max(self.work[cell.name], TRAINING)
        return True

    def fail(self, cell: SweepCell, error: Exception, doing: str) -> None:
        """Notes a failure in the cell's folder and in the sweep's book; what came before it stays."""
        note: Failure = {"error": type(error).__name__, "message": str(error), "while": doing, "step": saved_step(cell.folder)[0]}
        note["traceback"] = traceback.format_exception(error)[-3:]
        cell.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(cell.folder / FAILED, json_text(note, indent=1) + "\n")
        self.failed[cell.name], self.work[cell.name] = note, 1.0
        self.write_book()
        self.tell(f"{cell.name} failed: {error}")

    def write_book(self) -> None:
        def line(cell: SweepCell) -> dict[str, Any]:
            if cell.name in self.failed:
                return {"state": "failed", **{name: self.failed[cell.name][name] for name in ("error", "message", "while")}}
            return {"state": "finished" if cell.name in self.records else "to do"}

        if jax.process_index():
            return
        book = {"cells": {cell.name: line(cell) for cell in self.cells}, "groups": self.groups, "versions": versions()}
        write_atomic(self.book, json_text(book, indent=1) + "\n")

    def tell(self, what: str) -> None:
        self.shown = max(self.shown, sum(self.work.values()))
        if self.told:
            self.told(self.shown, len(self.cells), what)


def groups_in(book: Path) -> list[dict[str, Any]]:
    """What an earlier process decided about groups; each has to name its cells and its lanes.

    Raises:
      SettingError: the file is not what a sweep writes.
    """
    groups = read_json(book).get("groups")
    if isinstance(groups, list) and all(
        isinstance(group, dict) and group.keys() >= {"cells", "lanes", "device"} for group in groups
    ):
        return groups
    raise SettingError(
        str(book), f"groups: {groups!r}"[:80], "groups of cells; without this file, it is decided anew who trains together"
    )


class _Data:
    """The data set that was asked for last."""

    def __init__(self) -> None:
        self._found: tuple[Settings, Splits] | None = None

    def of(self, settings: Settings) -> Splits:
        key = only_data(settings)
        if self._found is None or self._found[0] != key:
            self._found = None  # two need not be held at once
            self._found = key, load_data(settings)
        return self._found[1]


def _device() -> str:
    """What a measured choice holds for."""
    return f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
