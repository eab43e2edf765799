"""What experiments share: cells that are published already, and CSVs that grow."""

import dataclasses

import pytest

from bap_jax.errors import SettingError
from bap_jax.report import read_csv, write_csv
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Sweep
from experiments import common, published

ROW = {"data": "d", "model": "m", "arm": "a", "process": "p", "sparsity": 0.9, "seed": 0, "attack": "clean", "accuracy": 0.5}


def cells(*arms):
    found = (("digits", "mlp", arm, "0-60%", f"{sparsity:g}", seed) for arm in arms for sparsity in (0.8, 0.97) for seed in "01")
    return set(found)


SWEEP = Sweep(
    base=Settings(attack_steps=3), arms=({"budget": "none"}, {"budget": "uniform", "epsilon": "0.1"}, {}), sparsities=(0.8, 0.97)
)


def test_what_is_published_is_left_out():
    sweep = dataclasses.replace(SWEEP, seeds=range(2))
    assert [arm for arm in common.unpublished(sweep, set()).arms] == list(sweep.arms)
    assert common.unpublished(sweep, cells("clean", "uniform 0.1")).arms == [{}]
    partly = cells("clean", "blind") | set(sorted(cells("uniform 0.1"))[:3])
    assert common.unpublished(sweep, partly).arms == [sweep.arms[1]]
    with pytest.raises(SettingError, match="not published yet"):
        common.unpublished(sweep, cells("clean", "uniform 0.1", "blind"))


def test_parts_are_run_one_after_the_other_whatever_is_wrong_with_one(monkeypatch):
    seen = []

    def run(name, sweep, given, least):
        seen.append(sweep.seeds)
        if len(seen) == 1:
            raise SystemExit(1)

    monkeypatch.setattr(common, "run", run)
    monkeypatch.setattr(common.tyro, "cli", lambda *given, **more: common.Arguments())
    with pytest.raises(SystemExit):
        common.main_in_parts("x", [dataclasses.replace(SWEEP, seeds=range(count)) for count in (1, 2, 3)], None)
    assert seen == [range(1), range(2), range(3)]


def test_published_cells_are_known_by_these_names():
    assert ("mnist", "lenet5", "clean", "0-20%", "0.95", "0") in published.cells_in("mnist_lenet5")


def test_a_csv_takes_rows_in(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "RESULTS", tmp_path)
    assert published.cells_in("x") == set()
    write_csv(published.taken_in("x", [ROW, ROW | {"seed": 1}]), tmp_path / "x.csv")
    write_csv(published.taken_in("x", [ROW | {"accuracy": 0.75}, ROW | {"seed": 2}]), tmp_path / "x.csv")
    found = {cell[-1]: float(row["accuracy"]) for row in read_csv(tmp_path / "x.csv") for cell in [published.cell_of(row)]}
    assert found == {"1": 0.5, "0": 0.75, "2": 0.5}
