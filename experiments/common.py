"""What the experiments share: a command line, a grid with a progress bar, and where the numbers go."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from bap_jax.cli.commands import write_runs_report
from bap_jax.cli.grid import run_grid
from bap_jax.cli.main import set_up_process
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.reporting import checks_of, rows_of
from bap_jax.cli.screen import console, progress_bar, show_checks
from bap_jax.cli.settings import Settings
from bap_jax.report import COLUMNS, print_report, write_csv

RESULTS = Path(__file__).parent / "results"
PUBLISHED = (*COLUMNS, "split", "sparsity_measured", "compression_ratio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where an experiment runs and writes."""

    out: Path = Path("runs")
    """Folder for the run folders and the report; finished cells in it are not computed again."""
    seeds: int = 3
    """Seeds per cell."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else TFDS_DATA_DIR."""
    devices: int | None = None
    """How many CPU devices to use; one by default."""
    publish: bool = False
    """Also replace the experiment's CSV in experiments/results/."""


def arguments(description: str | None) -> Arguments:
    """The parsed command line, with the process set up for it."""
    parsed = tyro.cli(Arguments, description=description)
    set_up_process(parsed.devices)
    return parsed


def run(
    name: str, title: str, given: Arguments, cells: Sequence[Settings], plans: Sequence[AttackPlan], *, notes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Runs a grid, writes its report to ``OUT/NAME`` and, if asked to publish, its rows to ``experiments/results/NAME.csv``."""
    screen = console()
    with progress_bar(name, len(cells), screen) as update:
        told: Callable[[int, int, str], None] = lambda done, total, cell: update(done, cell)  # noqa: E731
        records = run_grid(
            cells, plans, given.out / name / "cells", devices=given.devices or 1, told=told, data_dir=given.data_dir
        )
    tested = [record for record in records if record["plan"]["split"] == "test"]
    paths = write_runs_report(tested, given.out / name, title=title, notes=tuple(notes))
    if given.publish:
        RESULTS.mkdir(exist_ok=True)
        write_csv(rows_of([stamped(record) for record in records]), RESULTS / f"{name}.csv")
    print_report(rows_of(tested), screen)
    show_checks(checks_of(records), screen)
    screen.print(f"report: {paths['report.html']}", highlight=False)
    check_learnt(records)
    return records


def stamped(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the columns to publish, and the versions that measured it (not those of today) in every row."""
    found = record["versions"]
    text = f"bap_jax {found['bap_jax']}, jax {found['jax']}, python {found['python']}"
    return {**record, "rows": [{name: row[name] for name in PUBLISHED} | {"versions": text} for row in record["rows"]]}


def check_learnt(records: Sequence[dict[str, Any]], least: float = 0.5) -> None:
    """Ends the experiment with an error if a network did not learn: comparing with it would mean nothing.

    Args:
      records: all evaluations.
      least: the clean accuracy that every network has to reach.
    """
    clean = {record["run"]: row["accuracy"] for record in records for row in record["rows"] if row["attack"] == "clean"}
    failed = [f"{run}: {accuracy:.3f}" for run, accuracy in clean.items() if accuracy < least]
    if failed:
        sys.exit(f"INVALID: clean accuracy below {least} in\n" + "\n".join(failed))
