"""`bap runs`: the run folders below some folders, and how far each has come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from bap_jax.cli import arguments as cli
from bap_jax.cli.output import tell
from bap_jax.cli.screen import console
from bap_jax.errors import SettingError
from bap_jax.runs.listing import Listed, list_runs
from bap_jax.runs.trust import Trust


def run_runs(command: cli.Runs, trust: Trust) -> int:
    """`bap runs`."""
    for folder in command.folders:
        if not folder.is_dir():
            raise SettingError("FOLDERS", str(folder), "a folder with runs in it")
    found = list_runs(command.folders)
    tell(runs=found)
    screen = console()
    if not found:
        screen.print(f"no runs in {', '.join(map(str, command.folders))}", highlight=False, soft_wrap=True)
        return 0
    table = Table(title=f"{len(found)} run{'' if len(found) == 1 else 's'}", title_justify="left")
    for column in ("run", "data, network", "method", "sparse", "step", "clean", "robust", "finished"):
        table.add_column(column, overflow="fold", justify="right" if column in ("sparse", "step", "clean", "robust") else "left")
    for one in found:
        table.add_row(*_cells(one))
    screen.print(table)
    return 0


def _cells(one: Listed) -> tuple[str, ...]:
    def per_cent(value: Any) -> str:
        return "" if value is None else f"{100 * value:.1f} %"

    robust = "" if one.robust is None else f"{per_cent(one.robust)} {one.attack}"
    finished = "damaged" if one.note else "yes" if one.finished else "no"
    what = ", ".join(part for part in (one.data, one.model) if part)
    step = "" if one.step is None else str(one.step)
    return str(Path(one.run)), what, one.method, per_cent(one.sparsity), step, per_cent(one.clean), robust, finished
