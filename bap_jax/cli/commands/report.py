"""`bap report`: the evaluations of runs as one report, and its table on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bap_jax.cli import arguments as cli
from bap_jax.cli.output import command_line, tell
from bap_jax.cli.screen import console
from bap_jax.errors import SettingError
from bap_jax.report import print_report, write_leaderboard
from bap_jax.runs.records import _readable_evaluations, evaluations_of
from bap_jax.runs.report import write_runs_report
from bap_jax.runs.report_inputs import rows_of
from bap_jax.runs.trust import Trust


def run_report(command: cli.Report, trust: Trust) -> int:
    """`bap report`."""
    if not command.runs:
        raise SettingError("RUNS", "", "at least one run folder")
    if command.samples < 0:
        raise SettingError("--samples", command.samples, "a whole number of at least 0")
    records = [record for run_folder in command.runs for record in evaluations_of(run_folder)]
    tested = [record for record in records if record["plan"]["split"] == "test"]
    notes = _left_out(command.runs, records, tested)
    records = tested or records  # validation is no result where there is a test
    if command.leaderboard:
        page = write_leaderboard(rows_of(records), command.out)["leaderboard.html"]
        console().print(f"leaderboard: {page}", highlight=False)
    paths = write_runs_report(
        records,
        command.out,
        title=command.title,
        notes=notes,
        samples=command.samples,
        data_dir=command.data_dir,
        trust=trust,
        command=command_line(),
    )
    tell(files=paths, rows=rows_of(records), notes=notes)
    print_report(rows_of(records), console())
    console().print(f"report: {paths['report.html']}", highlight=False)
    return 0


def _left_out(runs: Sequence[Path], records: Sequence[dict[str, Any]], tested: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Which evaluations a report leaves out, and why."""
    outdated = sum(len(_readable_evaluations(run_folder)) for run_folder in runs) - len(records)
    validation = len(records) - len(tested) if tested else 0
    notes = [f"{validation} evaluations on validation data are left out."] if validation else []
    return (*notes, *([f"{outdated} evaluations of checkpoints that training has overtaken are left out."] if outdated else []))
