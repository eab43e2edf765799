"""Sixteen cells by `bap sweep`, against a process per cell and against one process that loops over them.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bap_jax.bench.process import python_on
from bap_jax.bench.result import RatioRow, machine, plain
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.execute import BOOK, Together, run_sweep
from bap_jax.sweeps.grid import Process, Sweep
from bap_jax.timing import Sample, ratio, sample

SPARSITIES, SEEDS = (0.5, 0.8, 0.9, 0.97), range(4)
SWEPT, LOOP, PROCESSES = "bap sweep", "one process, cells in a loop", "a process per cell"
GOALS = {PROCESSES: 0.3, LOOP: None}  # on an accelerator 0.4 of the loop


class OneProcess(NamedTuple):
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
        command = python_on("bap_jax.bench.sweep", json.dumps(self._asdict(), allow_nan=False))
        done = subprocess.run(command, env=kept, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"a process of this benchmark failed: {done.stderr[-2000:]}")


def time_sweep(
    settings: Settings, progress: Callable[[int, str, int], None] = lambda done, what, total: None
) -> tuple[dict[str, Any], list[RatioRow], dict[str, Sample]]:
    """Times the three once, one after the other.

    Args:
      settings: what all cells share; checked.
      progress: called with the cells done, what is timed now, and the cells in all.

    Returns:
      The figures as JSON, the ratios, and the seconds that each took.

    Raises:
      RuntimeError: a process failed.
    """
    count = len(SPARSITIES) * len(SEEDS)
    with tempfile.TemporaryDirectory() as folder:
        taken: dict[str, Sample] = {}
        for number, (name, together) in enumerate(((SWEPT, "auto"), (LOOP, "loop"))):
            progress(number * count, name, 3 * count)
            taken[name] = timed(OneProcess(settings.as_dict(), f"{folder}/{together}", together))  # type: ignore[arg-type]
        each = []
        for cell in range(count):
            progress(2 * count + cell, PROCESSES, 3 * count)
            each.append(timed(OneProcess(settings.as_dict(), f"{folder}/{cell}", "loop", cell)))
        progress(3 * count, PROCESSES, 3 * count)
        taken[PROCESSES] = Sample(*(sum(part) for part in zip(*each, strict=True)))
        groups = json.loads((Path(folder) / "auto" / BOOK).read_text(encoding="utf-8"))["groups"]
    rows = [row(taken, name) for name in (PROCESSES, LOOP)]
    record = {"machine": machine(), "settings": settings.as_dict(), "ratios": [plain(one) for one in rows], "groups": groups}
    return record | {"seconds": {name: found._asdict() for name, found in taken.items()}}, rows, taken


def row(taken: dict[str, Sample], other: str) -> RatioRow:
    """The sweep's time over that of another way."""
    mine, theirs = [taken[SWEPT]], [taken[other]]
    return RatioRow(f"{SWEPT} / {other}", ratio(mine, theirs), ratio(mine, theirs, "processor"), GOALS[other])


def timed(job: OneProcess) -> Sample:
    """Seconds on the clock, and of processor time in the job's process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = sample(job.run).wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Sample(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _main() -> None:
    job = OneProcess(**json.loads(sys.argv[1]))
    swept = run_sweep(job.sweep(), Path(job.out), together=job.together)
    if swept.failed:
        sys.exit(f"{len(swept.failed)} cells failed: {next(iter(swept.failed.values()))}")
