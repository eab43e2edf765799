"""`bap sweep` and `bap demo`: a sweep with progress, its report, and what failed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bap_jax.cli import arguments as cli
from bap_jax.cli.output import command_line, tell
from bap_jax.cli.process import devices_of
from bap_jax.cli.screen import console, progress_bar, show_checks
from bap_jax.report import print_report
from bap_jax.runs.report import write_runs_report
from bap_jax.runs.report_inputs import checks_of, rows_of
from bap_jax.runs.trust import Trust
from bap_jax.sweeps.demo import SWEEP
from bap_jax.sweeps.execute import BOOK, SweepCell, Swept, Together, cells_of, run_sweep, state_of, trust_in
from bap_jax.sweeps.file import load_sweep
from bap_jax.sweeps.grid import Sweep, with_seeds
from bap_jax.sweeps.shared import parse_shard, run_shared


def run_sweep_file(command: cli.SweepFile, trust: Trust) -> int:
    """`bap sweep`: 1 if a cell failed."""
    loaded = with_seeds(load_sweep(command.file), command.seeds)
    screen = console()
    if command.dry_run:
        show_cells(cells_of(loaded, command.out, command.data_dir), screen)
        return 0
    if command.shard is not None or command.claim:
        return run_part(command, loaded, screen)
    swept = run_and_report(
        loaded,
        command.out,
        together=command.together,
        devices=devices_of(command.devices),
        data_dir=command.data_dir,
        screen=screen,
    )
    return 1 if swept.failed else 0


def run_part(command: cli.SweepFile, loaded: Sweep, screen: Console) -> int:
    """`bap sweep --shard` and `--claim`: a part of a sweep that others work on, too; the report, if it was the last."""
    shard = parse_shard(command.shard) if command.shard is not None else (0, 1)
    cells = cells_of(loaded, command.out, command.data_dir)
    with progress_bar("cells", len(cells), screen) as update:
        found = run_shared(
            loaded,
            command.out,
            shard=shard,
            together=command.together,
            devices=devices_of(command.devices),
            data_dir=command.data_dir,
            told=lambda done, total, what: update(round(done, 2), what, total),
        )
    if found.to_do:
        said = f"{found.to_do} of {len(cells)} cells are for others to do; when all are done, bap sweep without --shard"
        screen.print(f"{said} and --claim writes the report", highlight=False, soft_wrap=True)
    else:
        report(found.records, loaded, command.out, screen, trust_in(cells))
    show_failed(Swept(found.records, found.failed), len(cells), command.out, screen)
    return 1 if found.failed else 0


def run_demo(command: cli.Demo, trust: Trust) -> int:
    """`bap demo`: the main job on the embedded digits, from nothing to a report; 1 if a cell failed."""
    swept = run_and_report(with_seeds(SWEEP, command.seeds), command.out, devices=command.devices or 1, screen=console())
    return 1 if swept.failed else 0


def run_and_report(
    loaded: Sweep,
    out: Path,
    *,
    screen: Console,
    together: Together = "auto",
    devices: int | None = 1,
    data_dir: str | None = None,
) -> Swept:
    """Runs a sweep with a progress bar, writes its report to its folder and shows both."""
    cells = cells_of(loaded, out, data_dir)
    states = Counter(state_of(cell).split(":")[0].split(",")[0].split(" at ")[0] for cell in cells)
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    screen.print(f"{len(cells)} cells: {counted}", highlight=False, soft_wrap=True)
    with progress_bar("cells", len(cells), screen) as update:
        swept = run_sweep(
            loaded,
            out,
            together=together,
            devices=devices,
            data_dir=data_dir,
            told=lambda done, total, what: update(round(done, 2), what, total),
        )
    report(swept.records, loaded, out, screen, trust_in(cells))
    tell(cells=len(cells), rows=rows_of(swept.records), failed=swept.failed, out=out)
    show_failed(swept, len(cells), out, screen)
    return swept


def report(records: list[dict[str, Any]], loaded: Sweep, out: Path, screen: Console, trust: Trust) -> None:
    """The report on the test data, or on validation data where nothing else was evaluated."""
    tested = [record for record in records if record["plan"]["split"] == "test"] or records
    if not tested:
        return
    paths = write_runs_report(tested, out, title=loaded.title, notes=tuple(loaded.notes), trust=trust, command=command_line())
    print_report(rows_of(tested), screen)
    show_checks(checks_of(records), screen)
    for name in ("report.html", "results.csv"):
        screen.print(f"{name.partition('.')[0]}: {paths[name]}", highlight=False, soft_wrap=True)


def show_failed(swept: Swept, count: int, out: Path, screen: Console) -> None:
    """Which cells failed, and with what."""
    if not swept.failed:
        return
    said = f"{len(swept.failed)} of {count} cells failed; the same command tries them again"
    screen.print(said, style="red", highlight=False)
    for name, note in swept.failed.items():
        text = f"  {name}, {note['while']}: {note['error']}: {note['message']}"
        screen.print(text, highlight=False, soft_wrap=True)
    screen.print(f"the whole list: {out / BOOK}", highlight=False, soft_wrap=True)


def show_cells(cells: list[SweepCell], screen: Console) -> None:
    """The cells of a sweep and what has become of them."""
    tell(cells={cell.name: state_of(cell) for cell in cells})
    table = Table(title=f"{len(cells)} cells", title_justify="left")
    for column in ("cell", "state"):
        table.add_column(column, overflow="fold")
    for cell in cells:
        table.add_row(cell.name, state_of(cell))
    screen.print(table)
