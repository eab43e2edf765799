"""The command line as a user meets it: train, evaluate, report in one folder."""

import json
import math
import shutil
import subprocess

import numpy as np
import pytest

from bap_jax.checkpoint import read_config, read_metrics
from bap_jax.runs.settings import Settings

TRAIN = (
    *("train", "--steps", 30, "--batch-size", 64, "--ramp-end", 0.5, "--final-sparsity", 0.8, "--attack-steps", 2),
    *("--validations", 3, "--validation-limit", 64, "--validation-steps", 2, "--validation-epsilon", "0,0.1"),
)


@pytest.fixture(scope="module")
def module_bap():
    from bap_jax.cli.main import main

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code

    return run


@pytest.fixture(scope="module")
def run(module_bap, tmp_path_factory):
    """A finished, evaluated run; its folder's name has a blank. Not to be changed."""
    folder = tmp_path_factory.mktemp("journey") / "my runs" / "x"
    assert module_bap(*TRAIN, "--out", folder, "--tensorboard") == 0
    assert module_bap("evaluate", folder, "--epsilon", "0,8/255,0.3", "--steps", 3, "--limit", 100) == 0
    return folder


def test_a_run_folder_holds_everything(run):
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {
        *("config.json", "versions.json", "metrics.jsonl", "checkpoints", "evaluations", "tensorboard")
    }
    assert any((run / "tensorboard").iterdir())
    config = read_config(run)
    assert config.keys() == Settings().as_dict().keys()
    assert config["seed"] == 0 and config["final_sparsity"] == 0.8 and config["budget.cutoff"] == "mean"
    assert Settings(**config).check().as_dict() == config  # it can be repeated from it
    versions = json.loads((run / "versions.json").read_text())
    assert {"python", "jax", "jaxlib", "bap_jax", "device_count"} <= versions.keys()


def test_metrics_are_finite_and_in_order(run):
    lines = read_metrics(run)
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps) and steps[-1] == 30
    assert all(math.isfinite(value) for line in lines for name, value in line.items() if name != "phase")
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == [10, 20, 30]
    assert all(line["epsilon_mean"] > 0 and line["time_per_step"] > 0 for line in logged)
    assert logged[-1]["sparsity"] == pytest.approx(0.8, abs=1e-4)
    validated = [line["step"] for line in lines if "validation_mean" in line]
    assert validated == [20, 30]  # not before the ramp's end, after which the sparsity is the final one


def test_the_same_command_gives_the_same_run(run, bap, left, tmp_path):
    assert bap(*TRAIN, "--out", tmp_path / "again")[0] == 0
    left(tmp_path / "again").same_as(left(run))


def test_an_evaluation_is_kept_beside_its_run(run):
    (path,) = (run / "evaluations").glob("*.json")
    record = json.loads(path.read_text())
    assert record["finished"] and record["step"] == 30
    rows = record["rows"]
    assert [(row["attack"], row["epsilon"]) for row in rows] == [("clean", 0.0), ("pgd-3", 8 / 255), ("pgd-3", 0.3)]
    assert all(row["num_examples"] == 100 and row["sparsity"] == 0.8 and row["arm"].startswith("blind") for row in rows)
    assert all(row["sparsity_measured"] == pytest.approx(0.8, abs=1e-4) for row in rows)
    assert rows[0]["accuracy"] >= rows[1]["accuracy"] >= rows[2]["accuracy"]
    with np.load(path.with_suffix(".npz")) as entries:
        correct = entries["prediction"] == entries["label"]
        assert len(entries["index"]) == 100 and correct.mean() == pytest.approx(rows[0]["accuracy"])


def test_a_report_is_written_wherever_the_run_has_been_moved(run, bap, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    code, output, error = bap("report", "moved", "--out", tmp_path / "my report", "--title", "A title of mine")
    assert code == 0, error
    written = {path.name for path in (tmp_path / "my report").iterdir()}
    assert {"report.html", "report.md", "results.csv", "aer.png", "security.png"} <= written
    assert "blind" in output
    assert "A title of mine" in (tmp_path / "my report" / "report.md").read_text()
    table = (tmp_path / "my report" / "results.csv").read_text().splitlines()
    assert len(table) == 1 + 3
    code, _, error = bap("report", "moved", "--out", tmp_path / "other", "--leaderboard")  # attacked by PGD, on digits
    assert code == 2 and "--attack autoattack" in error and not (tmp_path / "other").exists()


def test_another_checkpoint_can_be_evaluated(run, bap, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    plan = ("evaluate", tmp_path / "run", "--epsilon", "0", "--steps", 3, "--limit", 100)
    code, output, _ = bap(*plan, "--checkpoint", "best")
    assert code == 0 and "step " in output
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    code, output, _ = bap(*plan, "--checkpoint", steps[0], "--split", "validation")
    assert code == 0 and f"step {steps[0]}, validation data" in " ".join(output.split())
    assert ("this run is not finished" in output) == (steps[0] != 30)


COMMANDS = (("train",), ("evaluate",), ("report",), ("data",), ("data", "prepare"), ("data", "show"), ("bench",), ("demo",))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command, bap):
    code, output, _ = bap(*command, "--help")
    assert code == 0 and f"usage: bap {' '.join(command)}" in " ".join(output.split())
    assert len(output) > 300


def test_python_m_bap_jax_is_bap_and_runs_nothing_of_the_current_folder(python, environment, tmp_path):
    for module in ("__future__", "typing", "json", "dataclasses", "jax", "tyro", "numpy"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('a module of the current folder ran')\n")
    command = [python, "-m", "bap_jax", "--help"]
    answer = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    for name in ("train", "evaluate", "report", "data", "bench", "demo"):
        assert name in answer.stdout
