"""A sweep that several processes share: each unit is done once, by one of them, and ends as it would have by itself."""

import dataclasses
import json
from pathlib import Path

import pytest
from sweeps_for_tests import SMALL

from bap_jax.checkpoint import lock_folder
from bap_jax.cli.commands import sweep as sweep_command
from bap_jax.errors import SettingError
from bap_jax.runs.settings import Settings
from bap_jax.sweeps import execute, shared
from bap_jax.sweeps.execute import SweepCell
from bap_jax.sweeps.shared import parse_shard, run_shared, unit_name, with_starts

FEW = dataclasses.replace(SMALL, processes=SMALL.processes[:1])  # two cells


def told_of(records):
    """What evaluations say, but for where and how long."""
    return [{name: record[name] for name in ("plan", "step", "accuracies") if name in record} for record in records]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return execute.run_sweep(FEW, tmp_path_factory.mktemp("alone"), together="loop")


def test_parts_make_the_whole(alone, tmp_path):
    first = run_shared(FEW, tmp_path, shard=(0, 2), together="loop")
    assert first.to_do == 1 and len(first.records) == 1 and not first.failed
    book = json.loads((tmp_path / "sweep.json").read_text())
    assert sorted(line["state"] for line in book["cells"].values()) == ["finished", "to do"]
    second = run_shared(FEW, tmp_path, shard=(1, 2), together="loop")
    assert second.to_do == 0 and told_of(second.records) == told_of(alone.records)
    again = execute.run_sweep(FEW, tmp_path, together="loop")  # writes the report of what is there
    assert told_of(again.records) == told_of(alone.records)


def test_what_another_process_has_is_left_to_it_and_taken_when_it_is_gone(tmp_path):
    cells = execute.cells_of(FEW, tmp_path)
    claim = tmp_path / shared.CLAIMS / unit_name(cells[:1])
    claim.mkdir(parents=True)
    with lock_folder(str(claim)):
        found = run_shared(FEW, tmp_path, together="loop")
        assert found.to_do == 1 and [record["run"] for record in found.records] == [str(cells[1].folder)]
    with lock_folder(str(tmp_path), shared=True), pytest.raises(SettingError, match="no other process is writing into"):
        execute.run_sweep(FEW, tmp_path)  # one that does not share waits for those that do
    assert run_shared(FEW, tmp_path, together="loop").to_do == 0


def test_cells_that_begin_with_one_network_stay_together():
    cell = lambda name, start=None: SweepCell(name, Settings(), Path(name), (), start and (Path(start), Settings()))  # noqa: E731
    units = [[cell("a", "x")], [cell("b")], [cell("c", "y")], [cell("d", "x"), cell("e", "y")]]
    assert [[one.name for one in unit] for unit in with_starts(units)] == [["a", "c", "d", "e"], ["b"]]


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "1/0", "a/b"])
def test_a_part_that_there_is_none_of(text):
    with pytest.raises(SettingError, match=r"--shard = .*: expected I/N"):
        parse_shard(text)


def test_the_command_says_what_is_left_to_others_and_the_last_one_reports(bap, monkeypatch, tmp_path):
    reported = []
    monkeypatch.setattr(sweep_command, "report", lambda records, *_: reported.append(len(records)))
    file, few = tmp_path / "some.py", "dataclasses.replace(SMALL, processes=SMALL.processes[:1], arms=SMALL.arms[:1])"
    file.write_text(f"from sweeps_for_tests import SMALL\nimport dataclasses\nSWEEP = {few}\n")
    code, output, error = bap("sweep", file, "--out", tmp_path / "out", "--together", "loop", "--shard", "1/2")
    assert code == 0 and "1 of 1 cells are for others to do" in output, error
    code, output, error = bap("sweep", file, "--out", tmp_path / "out", "--together", "loop", "--claim")
    assert code == 0 and reported == [1] and "for others" not in output, error
