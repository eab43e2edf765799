"""`bap bench`: the figures of :mod:`bap_jax.bench` on the screen and in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bap_jax.atomic import json_text, write_atomic
from bap_jax.bench.result import RatioRow
from bap_jax.bench.steps import device_count, time_steps
from bap_jax.bench.suites import SUITES
from bap_jax.bench.sweep import time_sweep
from bap_jax.cli import arguments as cli
from bap_jax.cli.output import tell
from bap_jax.cli.screen import console, progress_bar
from bap_jax.cli.slots import network_told
from bap_jax.errors import SettingError
from bap_jax.parallel import check_batch_size
from bap_jax.runs.settings import Settings
from bap_jax.runs.trust import Trust
from bap_jax.timing import Ratio


def run_bench(command: cli.Bench, trust: Trust) -> int:
    """Times a suite and prints the ratios; 1 if the step on several devices stalled."""
    settings = _settings(command)
    if _sweeps(command):
        return _bench_sweep(command, settings)
    screen = console()
    with progress_bar("compiling, then timing", command.rounds, screen) as update:
        progress = lambda done: update(done, "rounds")  # noqa: E731
        if command.suite == "step":
            record, rows = time_steps(settings, rounds=command.rounds, devices=command.devices, progress=progress)
        else:
            record, rows = SUITES[command.suite](settings, rounds=command.rounds, progress=progress)
    _show(record, rows, screen)
    _write(record, command.out)
    if command.out is not None:
        screen.print(f"figures: {command.out}", highlight=False)
    return 1 if record.get("stalled") else 0


def _sweeps(command: cli.Bench) -> bool:
    return command.sweep or command.suite == "sweep"


def _bench_sweep(command: cli.Bench, settings: Settings) -> int:
    screen = console()
    with progress_bar("cells", None, screen) as update:
        record, rows, taken = time_sweep(settings, update)
    there, groups = record["machine"], record["groups"]
    where = f"{there['device']}, {there['platform']}, {there['cores']} cores, load {there['load']}, jax {there['jax']}"
    count = sum(len(group["cells"]) for group in groups)
    title = f"{count} cells of {settings.data}, {settings.model}, {settings.steps} steps each"
    screen.print(ratios(f"{title}, timed once on {where}", rows))
    for name, found in taken.items():
        screen.print(f"{name}: {found.wall:.1f} s, {found.processor:.1f} s of processor time", highlight=False)
    for group in groups:
        screen.print(f"bap sweep trained {len(group['cells'])} cells, {group['lanes']} at once: {group['why']}", highlight=False)
    _write(record, command.out)
    return 0


def _settings(command: cli.Bench) -> Settings:
    for name in ("rounds", "attack_steps", "sweep_steps", "devices"):
        value = getattr(command, name)
        if value is not None and value < 1:
            raise SettingError("--" + name.replace("_", "-"), value, "a whole number of at least 1")
    if command.suite == "step" and not command.sweep:
        check_batch_size(command.batch_size, _Count(device_count(command.devices)), "--batch-size")  # type: ignore[arg-type]
    return Settings(
        data=command.data,
        data_dir=command.data_dir,
        model=command.model,
        batch_size=command.batch_size,
        attack_steps=command.attack_steps,
        steps=command.sweep_steps if _sweeps(command) else None,
        **network_told(command),
    ).check()


class _Count(NamedTuple):
    size: int


def _write(record: dict[str, Any], out: Path | None) -> None:
    tell(**record)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, json_text(record, indent=1) + "\n")


def _show(record: dict[str, Any], rows: list[RatioRow], screen: Console) -> None:
    machine = record["machine"]
    settings = record["settings"]
    title = f"{settings['data']}, {settings['model']}, batch {settings['batch_size']}, PGD-{settings['attack.num_steps']}"
    screen.print(ratios(f"{title}: median of {record['rounds']} rounds (min–max)", rows))
    what = record["suite"]
    table = Table(title=f"{what}, on {machine['device']}, {machine['platform']}, jax {machine['jax']}", title_justify="left")
    for column in (what, "seconds", "per second", "images/s", "compiled in"):
        table.add_column(column, justify="left" if column == what else "right")
    for name, line in record["steps"].items():
        compiled = "" if line["compile_seconds"] is None else f"{line['compile_seconds']:.1f} s"
        images = "" if line["images_per_second"] is None else f"{line['images_per_second']:.4g}"
        table.add_row(name, f"{line['seconds']:.4g}", f"{line['per_second']:.4g}", images, compiled)
    screen.print(table)
    for name, first in (record.get("first_steps") or {}).items():
        text = f"first step, compilation {name}: {first['compile_seconds']:.1f} s, {first['peak_bytes'] / 1e6:.0f} MB at most"
        screen.print(text, highlight=False)
    for use in record.get("utilisation", ()):
        text = f"{use['step']}: {use['flops']:.3g} operations, {100 * use['share']:.1f} % of {use['matmul_rate']:.3g} per second"
        screen.print(text + ", the measured rate of a matrix product", highlight=False)
    if record.get("stalled"):
        screen.print(record["stalled"], style="red")
    if machine["platform"] == "cpu" and machine["load"] is not None and machine["load"] > 1.5 * machine["cores"]:
        busy = f"this machine is busy (load {machine['load']:.1f} on {machine['cores']} cores)"
        screen.print(f"{busy}: trust the ratios of processor time more than those of the clock", style="yellow")


def ratios(title: str, rows: list[RatioRow]) -> Table:
    """The result as a table."""
    table = Table(title=title, title_justify="left")
    for column in ("ratio", "clock", "processor time", "goal"):
        table.add_column(column, justify="left" if column == "ratio" else "right")
    for row in rows:
        goal = "" if row.goal is None else f"≤ {row.goal:g}" if row.goal >= 0.1 else f"≤ {100 * row.goal:g} %"
        table.add_row(row.what, _ratio_text(row.ratio), "" if row.processor is None else _ratio_text(row.processor), goal)
    return table


def _ratio_text(value: Ratio) -> str:
    if value.median >= 0.1:
        return f"{value.median:.2f} ({value.low:.2f}–{value.high:.2f})"
    return f"{100 * value.median:.2f} % ({100 * value.low:.2f}–{100 * value.high:.2f})"
