"""`bap evaluate` with every kind of attack, on a small trained network: tables, files, resuming."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from bap_jax.checkpoint.journal import Journal
from bap_jax.errors import SettingError
from bap_jax.report.tables import SIZE_COLUMNS
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.loop import train
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import distance_summary, plan_name
from bap_jax.runs.settings import Settings
from bap_jax.types import Bounds


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that knows its digits somewhat. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(Settings(budget="uniform", epsilon="0.1", attack_steps=2, steps=120, batch_size=64, learning_rate=3e-3), folder)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_list_of_attacks_in_two_norms(run, bap):
    given = (
        "--attack",
        "pgd,fmn,noise",
        "--norm",
        "linf,l2",
        "--epsilon",
        "linf=0,8/255,0.1;l2=0.5",
        "--steps",
        10,
        "--queries",
        5,
    )
    code, output, error = bap("evaluate", run, *given, "--limit", 60, "--batch-size", 32, "--save-examples")
    assert code == 0, error
    for part in ("worst of", "smallest adversarial perturbations", "median", "95 % interval", "checks:"):
        assert part in output
    record = json.loads(next((run / "evaluations").glob("*.json")).read_text())
    told = {(row["attack"], row["norm"], round(row["epsilon"], 3)): row for row in record["rows"]}
    assert ("pgd-10", "linf", 0.031) in told and ("fmn-10", "l2", 0.5) in told and ("noise-5", "l2", 0.5) in told
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in record["rows"])
    assert {check["name"] for check in record["checks"]} >= {"sparsity as asked for", "fmn-10-linf and pgd-10-linf agree"}
    assert record["distances"].keys() == {"fmn-10-linf", "fmn-10-l2"}
    with np.load(next((run / "evaluations").glob("*[0-9a-f].npz"))) as table:
        assert len(table["label"]) == 60 and table["success/pgd-10-linf"].shape == (3, 60)
        right = table["prediction"] == table["label"]
        assert (table["distance/fmn-10-l2"][right] > 0).all() and not table["distance/fmn-10-l2"][~right].any()
        assert (table["nearest/l2"] <= table["distance/fmn-10-l2"]).all()
        for row in record["rows"]:  # any figure can be computed again
            if row["attack"] == "pgd-10" and row["norm"] == "linf":
                at = np.argmin(np.abs(table["epsilon/pgd-10-linf"] - row["epsilon"]))
                assert 1 - table["success/pgd-10-linf"][at].mean() == pytest.approx(row["accuracy"])
    with np.load(next((run / "evaluations").glob("*.examples.npz"))) as examples:
        assert examples["pgd-10-linf"].shape == (2, 60, 8, 8, 1) and examples["fmn-10-l2"].shape == (1, 60, 8, 8, 1)
    assert not list((run / "evaluations").glob("*.partial"))


def test_a_cascade_and_a_transfer_attack(run, bap):
    plan = ("--attack", "cascade:fgsm+pgd,pgd", "--epsilon", "0.1", "--steps", 5, "--limit", 60, "--transfer-from", run)
    code, output, error = bap("evaluate", run, *plan)
    assert code == 0, error
    told = " ".join(output.split())
    assert "fgsm+pgd-linf, robust accuracy after each attack" in told and "pgd-5 from run" in told
    record = json.loads(next((run / "evaluations").glob("*.json")).read_text())
    assert [stage["stage"] for stage in record["stages"]["fgsm+pgd-linf"]] == ["fgsm-linf", "pgd-5-linf"]


def test_the_papers_protocol_beside_a_real_attack_and_the_sizes_of_the_network(run, bap):
    cut = ("--attack", "fgsm-truncated,deepfool-truncated,pgd", "--norm", "linf,rms", "--epsilon", "linf=0.1;rms=0,0.05,0.2")
    code, _, error = bap("evaluate", run, *cut, "--steps", 10, "--limit", 40, "--batch-size", 40, "--no-controls")
    assert code == 0, error
    record = json.loads(next((run / "evaluations").glob("*.json")).read_text())
    told = {(row["attack"], row["norm"]): row.get("repaired") for row in record["rows"]}
    assert told["deepfool-truncated", "rms"] >= 0 and told["fgsm-truncated", "linf"] is not None
    assert told["pgd-10", "rms"] is None and told["pgd-10", "linf"] is None
    assert "deepfool-truncated-rms" in record["distances"] and "fgsm-truncated-linf" not in record["distances"]
    beside = [check["status"] for check in record["checks"] if "read beside a real attack" in check["name"]]
    assert beside == ["passed", "passed"]

    assert all(row["budget"] == "uniform" for row in record["rows"])
    assert len({tuple(row[name] for name in SIZE_COLUMNS) for row in record["rows"]}) == 1
    assert bap("export", run, "--layout", "jax")[0] == 0
    tensors = safetensors.numpy.load_file(run / "export" / "model.safetensors")
    row = record["rows"][0]
    assert row["bytes"] < row["bytes_dense"] == len(safetensors.numpy.save(tensors))
    assert row["nonzero"] == sum(np.count_nonzero(tensor) for tensor in tensors.values())
    kernels = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    assert row["flops_dense"] == 2 * sum(kernel.size for kernel in kernels)
    assert row["flops_sparse"] == 2 * sum(np.count_nonzero(kernel) for kernel in kernels)


def test_autoattack_from_the_command_line(run, bap):
    code, output, error = bap("evaluate", run, "--attack", "autoattack", "--epsilon", "8/255", "--limit", 20, "--batch-size", 20)
    assert code == 0, error
    for stage in ("apgd-ce", "apgd-t", "fab-t", "square"):
        assert stage in output


def test_an_evaluation_that_crashed_goes_on(run):
    plan = AttackPlan(attack="pgd,fmn", epsilon="0.05,0.1", steps=5, limit=100, controls=False)
    whole = evaluate_run(run, plan, batch_size=25)
    for path in (run / "evaluations").iterdir():
        path.unlink()

    class Crash(Exception):
        pass

    def crash(told):
        if told.threat == "pgd-5-linf" and told.epsilon == 0.1 and told.done > 30:
            raise Crash

    with pytest.raises(Crash):
        evaluate_run(run, plan, batch_size=25, progress=crash)
    (partial,) = (run / "evaluations").glob("*.partial")
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.npz")}
    assert len(kept) >= 4

    seen = []
    original = Journal.record
    try:
        Journal.record = lambda self, name, rows: (seen.append(self._path(name).name), original(self, name, rows))
        again = evaluate_run(run, plan, batch_size=25)
    finally:
        Journal.record = original
    assert seen and not set(seen) & set(kept)
    assert again["rows"] == whole["rows"] and again["checks"] == whole["checks"] and not partial.exists()


def test_what_was_kept_of_other_weights_is_not_used(tmp_path):
    journal = Journal(tmp_path / "x", {"weights": "a"})
    journal.record("pgd/0.1/0", {"hit": np.array([True])})
    assert Journal(tmp_path / "x", {"weights": "a"}).recall("pgd/0.1/0")["hit"].all()
    assert Journal(tmp_path / "x", {"weights": "b"}).recall("pgd/0.1/0") is None


@pytest.mark.soak
def test_an_evaluation_killed_at_any_moment_ends_with_the_same_numbers(run, tmp_path):
    arguments = ["evaluate", str(run), "--attack", "autoattack", "--epsilon", "0.05", "--limit", "40", "--batch-size", "20"]
    other = Path(shutil.copytree(run, tmp_path / "other"))
    command = [sys.executable, "-m", "bap_jax", *arguments]
    for seconds in (14, 17):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    command[command.index(str(run))] = str(other)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    records = [json.loads(next((folder / "evaluations").glob("*.json")).read_text()) for folder in (run, other)]
    assert records[0]["rows"] == records[1]["rows"] and records[0]["stages"] == records[1]["stages"]


def test_names_of_threats_and_files():
    def names(**plan):
        return [threat.name for threat in AttackPlan(**plan).check().threats(Bounds())]

    assert names(attack="pgd,apgd-ce", restarts=3) == ["pgd-20-x3-linf", "apgd-ce-x3-linf"]
    assert names(attack="fmn,cw", norm="linf,l2") == ["fmn-linf", "fmn-l2", "cw-l2"]
    assert names(attack="autoattack,autoattack-plus", norm="l2") == ["autoattack-l2", "autoattack-plus-l2"]
    assert names(attack="sigma-zero, pgd0", norm="l0", steps=50) == ["sigma-zero-50-l0", "pgd0-50-l0"]
    assert names(attack="square", queries=100) == ["square-100-linf"]
    cut = ["pgd-20-linf", "pgd-20-rms", "deepfool-truncated-rms", "fgsm-truncated-linf"]
    assert names(attack="pgd,deepfool-truncated,fgsm-truncated", norm="linf,rms", steps=20) == cut
    with pytest.raises(SettingError, match="--steps"):
        AttackPlan(attack="deepfool-truncated", norm="rms", steps=20).check()
    plans = [AttackPlan(), AttackPlan(seed=1), AttackPlan(attack="cascade:pgd+fmn"), AttackPlan(norm="linf,l2")]
    assert len({plan_name(plan) for plan in plans}) == 4
    assert all(set(plan_name(plan)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-+.") for plan in plans)


def test_radii_of_each_norm():
    plan = AttackPlan(norm="linf,l2", epsilon="linf=0,8/255;l2=1")
    assert plan.epsilons() == {"linf": (0.0, 8 / 255), "l2": (1.0,)}
    assert AttackPlan(norm="linf,l2", epsilon="1").epsilons() == {"linf": (1.0,), "l2": (1.0,)}
    for bad in ("linf=0.1", "linf=0.1;l2=x", "linf=0.1;l2=1;l1=3"):
        with pytest.raises(SettingError, match="--epsilon"):
            AttackPlan(norm="linf,l2", epsilon=bad).check()


def test_quartiles_with_points_that_were_not_found():
    found = distance_summary(np.array([0.0, 0.1, 0.2, np.inf, np.inf, np.inf]))
    assert found == {"quarter": 0.2, "median": None, "three_quarters": None, "attacked": 5, "not_found": 3, "wrong": 1}
    assert distance_summary(np.zeros(3))["median"] is None
