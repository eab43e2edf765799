"""`bap bench --sweep`: sixteen cells by `bap sweep`, against a process per cell and against one process that loops over them.

Each of the three trains and evaluates the same cells in processes of its own, importing and compiling included; the report, which
is the same for all, is left out. `_main` with the argument JOB is such a process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bap_jax.atomic import json_text, write_atomic
from bap_jax.cli.arguments import Bench
from bap_jax.cli.bench import Row, machine, plain, ratios
from bap_jax.cli.bench_process import python_on
from bap_jax.cli.grid import Process, Sweep
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.screen import console, progress_bar
from bap_jax.cli.settings import Settings
from bap_jax.cli.sweep import BOOK, Together, run_sweep
from bap_jax.cli.timing import Sample, ratio, sample
from bap_jax.errors import SettingError

SPARSITIES, SEEDS = (0.5, 0.8, 0.9, 0.97), range(4)
SWEPT, LOOP, PROCESSES = "bap sweep", "one process, cells in a loop", "a process per cell"
GOALS = {PROCESSES: 0.3, LOOP: None}  # on an accelerator 0.4 of the loop


class Job(NamedTuple):
    """What one process does: the sweep, or one cell of it."""

    settings: dict[str, Any]
    out: str
    together: Together
    cell: int | None = None

    def sweep(self) -> Sweep:
        """The cells of this job: of the sixteen all, or one."""
        cells = [(sparsity, seed) for sparsity in SPARSITIES for seed in SEEDS]
        sparsities, seeds = (SPARSITIES, SEEDS) if self.cell is None else ((cells[self.cell][0],), (cells[self.cell][1],))
        plan = AttackPlan(attack="pgd", norm="linf", epsilon="0,0.1,0.2,0.3")
        settings = Settings(**self.settings)
        return Sweep(base=settings, sparsities=sparsities, seeds=seeds, processes=(Process(),), plans=(plan,))

    def run(self) -> None:
        """Does the job in a process of its own.

        Raises:
          RuntimeError: it failed.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
        command = python_on("bap_jax.cli.bench_sweep", json.dumps(self._asdict(), allow_nan=False))
        done = subprocess.run(command, env=kept, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"a process of this benchmark failed: {done.stderr[-2000:]}")


def bench_sweep(command: Bench) -> int:
    """Times the three once, one after the other, and prints the ratios."""
    if command.sweep_steps < 1:
        raise SettingError("--sweep-steps", command.sweep_steps, "a whole number of at least 1")
    settings = Settings(
        data=command.data,
        data_dir=command.data_dir,
        model=command.model,
        batch_size=command.batch_size,
        attack_steps=command.attack_steps,
        steps=command.sweep_steps,
    ).check()
    screen, count = console(), len(SPARSITIES) * len(SEEDS)
    with tempfile.TemporaryDirectory() as folder, progress_bar("cells", 3 * count, screen) as update:
        taken: dict[str, Sample] = {}
        for number, (name, together) in enumerate(((SWEPT, "auto"), (LOOP, "loop"))):
            update(number * count, name)
            taken[name] = timed(Job(settings.as_dict(), f"{folder}/{together}", together))  # type: ignore[arg-type]
        each = []
        for cell in range(count):
            update(2 * count + cell, PROCESSES)
            each.append(timed(Job(settings.as_dict(), f"{folder}/{cell}", "loop", cell)))
        update(3 * count, PROCESSES)
        taken[PROCESSES] = Sample(*(sum(part) for part in zip(*each, strict=True)))
        groups = json.loads((Path(folder) / "auto" / BOOK).read_text(encoding="utf-8"))["groups"]
    rows = [row(taken, name) for name in (PROCESSES, LOOP)]
    there = machine()
    where = f"{there['device']}, {there['platform']}, {there['cores']} cores, load {there['load']}, jax {there['jax']}"
    title = f"{count} cells of {settings.data}, {settings.model}, {settings.steps} steps each"
    screen.print(ratios(f"{title}, timed once on {where}", rows))
    for name, found in taken.items():
        screen.print(f"{name}: {found.wall:.1f} s, {found.processor:.1f} s of processor time", highlight=False)
    for group in groups:
        screen.print(f"bap sweep trained {len(group['cells'])} cells, {group['lanes']} at once: {group['why']}", highlight=False)
    if command.out is not None:
        record = {"machine": there, "settings": settings.as_dict(), "ratios": [plain(one) for one in rows], "groups": groups}
        record["seconds"] = {name: found._asdict() for name, found in taken.items()}
        command.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(command.out, json_text(record, indent=1) + "\n")
    return 0


def row(taken: dict[str, Sample], other: str) -> Row:
    """The sweep's time over that of another way."""
    mine, theirs = [taken[SWEPT]], [taken[other]]
    return Row(f"{SWEPT} / {other}", ratio(mine, theirs), ratio(mine, theirs, "processor"), GOALS[other])


def timed(job: Job) -> Sample:
    """Seconds on the clock, and of processor time in the job's process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = sample(job.run).wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Sample(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    swept = run_sweep(job.sweep(), Path(job.out), together=job.together)
    if swept.failed:
        sys.exit(f"{len(swept.failed)} cells failed: {next(iter(swept.failed.values()))}")
