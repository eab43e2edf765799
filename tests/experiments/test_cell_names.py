"""The folders of finished cells are found again: the name of every cell of every experiment is what it was."""

import importlib
import itertools
from pathlib import Path

import pytest

from bap_jax.sweeps import demo
from bap_jax.sweeps.grid import cell_name


def recorded() -> dict[str, set[str]]:
    """Experiment -> the names of its cells. A line is ``experiment data-model/arm/process sparsities seeds``."""
    found: dict[str, set[str]] = {}
    for line in (Path(__file__).parent / "cell_names.txt").read_text(encoding="utf-8").splitlines():
        experiment, head, sparsities, seeds = line.split(" ")
        cells = itertools.product(sparsities.split(","), seeds.split(","))
        found.setdefault(experiment, set()).update(f"{head}/{sparsity}/{seed}" for sparsity, seed in cells)
    return found


NAMES = recorded()


@pytest.mark.parametrize("experiment", NAMES)
def test_cells_are_called_as_they_were(experiment):
    sweep = demo.SWEEP if experiment == "demo" else importlib.import_module(f"experiments.{experiment}").SWEEP
    assert {cell_name(cell) for cell in sweep.cells()} == NAMES[experiment]
