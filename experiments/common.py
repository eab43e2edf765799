"""What the experiments share: a command line, a grid with a progress bar, and where the numbers go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from bap_jax.checkpoint import versions
from bap_jax.cli.commands import unique_rows, write_runs_report
from bap_jax.cli.evaluating import AttackPlan
from bap_jax.cli.grid import run_grid
from bap_jax.cli.main import set_up_process
from bap_jax.cli.screen import console, progress_bar, show_checks
from bap_jax.cli.settings import Settings
from bap_jax.report import print_report, write_csv

RESULTS = Path(__file__).parent / "results"


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
        found = versions()
        stamp = {"versions": f"bap_jax {found['bap_jax']}, jax {found['jax']}, python {found['python']}"}
        write_csv([{**row, **stamp} for row in unique_rows(records)], RESULTS / f"{name}.csv")
    print_report(unique_rows(tested), screen)
    show_checks([check for record in records for check in record["checks"]], screen)
    screen.print(f"report: {paths['report.html']}", highlight=False)
    return records
