"""What the experiments share when they run by themselves: a command line, and where the numbers go."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from bap_jax.cli.commands.sweep import run_and_report
from bap_jax.cli.process import set_up_process
from bap_jax.cli.screen import console
from bap_jax.errors import SettingError
from bap_jax.report import COLUMNS, write_csv
from bap_jax.runs.naming import COLUMNS as TRAINED
from bap_jax.runs.naming import arm_of, process_of, short_names
from bap_jax.runs.report_inputs import rows_of
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Sweep, with_seeds
from experiments import published
from experiments.published import RESULTS

SIZES = ("sparsity_measured", "compression_ratio", "nonzero", "bytes_dense", "bytes", "flops_dense", "flops_sparse")
PUBLISHED = (*COLUMNS, "split", *TRAINED, *SIZES, "repaired")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where an experiment runs and writes."""

    out: Path = Path("runs")
    """Folder for the run folders and the report; finished cells in it are not computed again."""
    seeds: int | None = None
    """So many seeds, from 0 on, instead of the experiment's."""
    seed: int | None = None
    """Only this seed: for several processes side by side, each with an --out of its own."""
    together: Literal["auto", "loop", "vmap"] = "auto"
    """How cells train that differ only in numbers: see `bap sweep`."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else TFDS_DATA_DIR."""
    devices: int | None = None
    """How many CPU devices to use; one by default."""
    unpublished: bool = False
    """Leave out arms whose cells all stand in the experiment's CSV in experiments/results/ already."""
    publish: bool = False
    """Also replace the experiment's CSV in experiments/results/; with --unpublished, --seeds or --seed, add to it."""


def main(name: str, sweep: Sweep, description: str | None, least_clean: float = 0.5) -> list[dict[str, Any]]:
    """Runs an experiment as ``bap sweep`` does, in ``OUT/NAME``, and publishes its rows in ``experiments/results/`` if asked
    to. Ends with an error if a cell failed, or one has a clean accuracy below ``least_clean`` and so did not learn.
    """
    given = tyro.cli(Arguments, description=description)
    set_up_process(given.devices)
    return run(name, sweep, given, least_clean)


def main_in_parts(name: str, parts: Sequence[Sweep], description: str | None, least_clean: float = 0.5) -> None:
    """:func:`main` of several sweeps one after the other, each of which holds the cells of those before it, so that one that is
    stopped early has the most useful cells. What is wrong with one does not keep the next from running.
    """
    given, wrong = tyro.cli(Arguments, description=description), None
    set_up_process(given.devices)
    for part in parts:
        try:
            run(name, part, given, least_clean)
        except SystemExit as error:
            wrong = error
    if wrong is not None:
        raise wrong


def run(name: str, sweep: Sweep, given: Arguments, least_clean: float) -> list[dict[str, Any]]:
    """Runs an experiment as a command line tells it to, see :func:`main`."""
    chosen = with_seeds(sweep, given.seeds) if given.seed is None else dataclasses.replace(sweep, seeds=(given.seed,))
    swept = run_and_report(
        unpublished(chosen, published.cells_in(name)) if given.unpublished else chosen,
        given.out / name,
        together=given.together,
        devices=given.devices or 1,
        data_dir=given.data_dir,
        screen=console(),
    )
    if swept.failed:
        sys.exit(1)
    if given.publish:
        RESULTS.mkdir(exist_ok=True)
        rows = rows_of([stamped(record) for record in swept.records])
        partly = given.unpublished or given.seeds is not None or given.seed is not None
        write_csv(published.taken_in(name, rows) if partly else rows, RESULTS / f"{name}.csv")
    check_learnt(swept.records, least_clean)
    return swept.records


def unpublished(sweep: Sweep, done: Collection[tuple[str, ...]]) -> Sweep:
    """The sweep without the arms of which every cell is among those in ``done``, as :func:`published.cell_of` names them.

    Raises:
      SettingError: nothing is left.
    """
    cells = sweep.cells()
    short = short_names(arm_of(cell) for cell in cells)
    open_arms = {arm_of(cell) for cell in cells if _cell_of(cell, short[arm_of(cell)]) not in done}
    left = [
        arm for arm in sweep.arms if any(arm_of(cell) in open_arms for cell in dataclasses.replace(sweep, arms=(arm,)).cells())
    ]
    if not left:
        raise SettingError("--unpublished", True, "cells that are not published yet; all are")
    return dataclasses.replace(sweep, arms=left)


def _cell_of(cell: Settings, arm: str) -> tuple[str, ...]:
    dense = cell.pruner == "dense"
    row = {"data": cell.data, "model": cell.model, "arm": arm, "sparsity": 0.0 if dense else cell.final_sparsity}
    return published.cell_of(row | {"process": process_of(cell), "seed": cell.seed})


def stamped(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the columns to publish, and the versions that measured it (not those of today) in every row."""
    found = record["versions"]
    text = f"bap_jax {found['bap_jax']}, jax {found['jax']}, python {found['python']}"
    return {**record, "rows": [{name: row.get(name) for name in PUBLISHED} | {"versions": text} for row in record["rows"]]}


def check_learnt(records: Sequence[dict[str, Any]], least: float) -> None:
    """Ends the experiment with an error if a network did not learn: comparing with it would mean nothing.

    Args:
      records: all evaluations.
      least: the clean accuracy that every network has to reach.
    """
    clean = {record["run"]: row["accuracy"] for record in records for row in record["rows"] if row["attack"] == "clean"}
    failed = [f"{run}: {accuracy:.3f}" for run, accuracy in clean.items() if accuracy < least]
    if failed:
        sys.exit(f"INVALID: clean accuracy below {least} in\n" + "\n".join(failed))
