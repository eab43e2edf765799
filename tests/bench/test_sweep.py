"""`bap bench --sweep`: sixteen cells together, in a loop, and in processes of their own."""

import json
from pathlib import Path

import pytest

from bap_jax.bench import sweep
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.execute import BOOK
from bap_jax.timing import Sample


def test_a_sweep_against_a_process_per_cell_and_a_loop(bap, monkeypatch, tmp_path):
    jobs = []

    def timed(job):
        jobs.append(job)
        out = Path(job.out)
        out.mkdir()
        (out / BOOK).write_text(json.dumps({"groups": [{"cells": ["a", "b"], "lanes": 2, "why": "measured"}]}))
        seconds = {"auto": 8.0, "loop": 10.0 if job.cell is None else 2.0}[job.together]
        return Sample(seconds, 2 * seconds)

    monkeypatch.setattr(sweep, "timed", timed)
    out = tmp_path / "figures.json"
    code, output, error = bap("bench", "--sweep", "--sweep-steps", 3, "--model", "mlp", "--out", out)
    assert code == 0 and "2 cells, 2 at once: measured" in output, error
    found = json.loads(out.read_text())["ratios"]
    assert [row["wall"]["median"] for row in found] == [row["processor"]["median"] for row in found] == [0.25, 0.8]
    assert [row["goal"] for row in found] == [0.3, None]
    alone = [job.sweep().cells() for job in jobs if job.cell is not None]
    whole = [job.sweep().cells() for job in jobs if job.cell is None]
    assert whole[0] == whole[1] == [cell for cells in alone for cell in cells] and {len(cells) for cells in alone} == {1}
    assert len(whole[0]) == 16 and {cell.steps for cell in whole[0]} == {3}


def test_the_processes_of_a_sweep_are_timed_and_must_not_fail(tmp_path):
    job = sweep.OneProcess(Settings(steps=0).as_dict(), str(tmp_path / "out"), "loop", 3)
    with pytest.raises(RuntimeError, match="--steps = 0"):
        sweep.timed(job)
