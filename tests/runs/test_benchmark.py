"""`bap benchmark` and the new threats of `bap evaluate` on small runs: files, numbers that agree, going on after a stop."""

import functools
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from bap_jax.evaluation import survey_protocol
from bap_jax.report.submission import check_entry
from bap_jax.runs import benchmark
from bap_jax.runs.benchmark import distances_as_list, measured_of
from bap_jax.runs.benchmark_plan import BenchmarkPlan
from bap_jax.runs.loop import train
from bap_jax.runs.settings import Settings

QUICK = {"num_steps": 5, "num_trial_steps": 3, "autoattack_settings": {"num_steps": 2, "attacks": ("apgd-ce",)}}
GIVEN = ("--limit", 24, "--trials", 3, "--batch-size", 24, "--no-controls")
ABOUT = 'name = "BAP"\ntitle = "Blind pruning"\nauthors = ["Haidong Xie"]\nyear = 2021\nlink = "https://example.org"\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network on digits. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    settings = {"model": "mlp", "model.hidden": (32,), "final_sparsity": 0.9}
    train(Settings(steps=40, batch_size=64, learning_rate=1e-2, attack_steps=1, **settings), folder)
    return folder


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "survey_protocol", functools.partial(survey_protocol, **QUICK))
    (tmp_path / "about.toml").write_text(ABOUT)
    return [Path(shutil.copytree(trained, tmp_path / name)) for name in ("x", "y")]


def test_what_it_writes_and_that_it_is_not_measured_twice(runs, bap, monkeypatch, tmp_path):
    out = tmp_path / "out"
    given = ("benchmark", *runs, *GIVEN, "--about", tmp_path / "about.toml", "--out", out)
    code, output, error = bap(*given, "--pickle")
    assert code == 0, error
    assert (
        "x, mlp hidden 32 on digits: not eligible: architecture, data" in output
        and "AutoAttack on 24 images, not 10,000" in output
    )
    told = json.loads((out / "entry.json").read_text())
    check_entry(told["entry"])
    assert [model["status"] for model in told["models"]] == ["not eligible: architecture, data"] * 2
    assert told["models"][0]["model_key"] is None and told["entry"]["ap_key"] == "BAP_Xie2021Blind"
    assert "here are 0" in (out / "issue.md").read_text()
    info = json.loads((out / "x.model_info.json").read_text())
    assert info["clean_acc"] == f"{100 * told['models'][0]['clean']:.2f}" and "24 images" in info["footnote"]
    with np.load(out / "x.npz") as kept:
        assert len(kept["distances"]) == 24 and kept["epsilons"].shape == kept["accuracy"].shape == (1000,)
        assert (kept["index"] == np.arange(179, 203)).all()  # the digits' test data ends before the protocol's images
        np.testing.assert_allclose(kept["accuracy"][500], np.mean(kept["distances"] > kept["epsilons"][500]))
        assert distances_as_list(out / "x.npz") == kept["distances"].tolist() == pickle.loads((out / "x.pickle").read_bytes())
    weights = safetensors.numpy.load_file(out / "x.safetensors")
    zeros = [np.mean(tensor == 0) for name, tensor in weights.items() if tensor.ndim == 2]
    assert max(zeros) == pytest.approx(0.9, abs=0.02)

    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(benchmark, "survey_protocol", refuse)
    assert bap(*given[:-1], tmp_path / "again")[0] == 0
    assert json.loads((tmp_path / "again" / "entry.json").read_text()) == told
    assert not (tmp_path / "again" / "x.pickle").exists()
    code, _, error = bap("report", runs[0], "--leaderboard", "--out", tmp_path / "report", "--samples", 0)
    assert code == 0, error
    assert "another network, mlp hidden 32; other data; 24 images" in (tmp_path / "report" / "leaderboard.md").read_text()


def test_a_cut_off_measurement_goes_on(runs, monkeypatch):
    plan, whole = BenchmarkPlan(limit=24, trials=3, controls=False), benchmark.survey_protocol

    def stop(*arguments, record, **settings):
        def refuse(name, rows):
            if name.startswith("measured"):
                raise KeyboardInterrupt
            record(name, rows)

        return whole(*arguments, record=refuse, **settings)

    monkeypatch.setattr(benchmark, "survey_protocol", stop)
    with pytest.raises(KeyboardInterrupt):
        benchmark.benchmark_run(runs[0], plan, batch_size=24)
    asked = []

    def go_on(*arguments, record, **settings):
        return whole(*arguments, record=lambda name, rows: (asked.append(name), record(name, rows)), **settings)

    monkeypatch.setattr(benchmark, "survey_protocol", go_on)
    resumed = benchmark.benchmark_run(runs[0], plan, batch_size=24)
    assert asked and all(name.startswith("measured") for name in asked)
    monkeypatch.setattr(benchmark, "survey_protocol", whole)
    straight = benchmark.benchmark_run(runs[1], plan, batch_size=24)
    assert measured_of(resumed)._replace(name="") == measured_of(straight)._replace(name="")
    assert resumed["survey"] == straight["survey"] and not list((runs[0] / "evaluations").glob("*.partial"))


def test_without_about_there_are_numbers_alone(runs, bap, tmp_path, refused):
    code, output, error = bap("benchmark", runs[0], *GIVEN, "--out", tmp_path / "out")
    assert code == 0, error
    assert "--about" in output and json.loads((tmp_path / "out" / "entry.json").read_text())["entry"] is None
    assert not (tmp_path / "out" / "issue.md").exists()
    (tmp_path / "about.toml").write_text("name = 1\n")
    assert "name = 1" in refused("benchmark", runs[0], "--about", tmp_path / "about.toml", "--out", tmp_path / "o")
    assert "--limit" in refused("benchmark", runs[0], "--limit", 0, "--out", tmp_path / "o")


def test_goals_regions_and_passes_from_the_command_line(runs, bap, refused):
    run, common = runs[0], ("--limit", 24, "--batch-size", 24, "--no-controls")
    assert "--top-k = 10: expected fewer than the 10 classes" in refused("evaluate", run, "--top-k", 10, *common)
    told = {}
    for name, given in {
        "goal": ("--attack", "pgd", "--goal", "targeted:next", "--epsilon", "0.1,1", "--steps", 3),
        "top": ("--attack", "pgd", "--top-k", 5, "--epsilon", "1", "--steps", 3),
        "region": ("--attack", "pgd", "--region", "patch:2,2,4,4", "--epsilon", "0.2", "--steps", 3, "--save-examples"),
        "passes": ("--attack", "fmn,ddn", "--norm", "l2", "--epsilon", "0.5", "--max-passes", 41),
    }.items():
        before = set((run / "evaluations").glob("*.json")) if (run / "evaluations").exists() else set()
        code, _, error = bap("evaluate", run, *given, *common)
        assert code == 0, error
        (path,) = set((run / "evaluations").glob("*.json")) - before
        told[name] = json.loads(path.read_text()), path
    rows = {row["epsilon"]: row for row in told["goal"][0]["rows"] if row["attack"] == "pgd-3 targeted:next"}
    assert rows[1.0]["accuracy"] < rows[0.1]["accuracy"] <= rows[0.0]["accuracy"]
    with np.load(told["goal"][1].with_suffix(".npz")) as kept:
        assert (kept["wanted/pgd-3-linf"] == (kept["label"] + 1) % 10).all()
        assert kept["withstands/pgd-3-linf"].mean(axis=1).tolist() == pytest.approx(
            [rows[0.1]["accuracy"], rows[1.0]["accuracy"]]
        )
    with np.load(next((run / "evaluations").glob("*.examples.npz"))) as kept:
        images = kept["pgd-3-patch.2.2.4.4-linf"][0]
    clean = _digits(24)
    outside = np.ones((8, 8), bool)
    outside[2:6, 2:6] = False
    assert (images[:, outside] == clean[:, outside]).all() and (images != clean).any()
    record = told["passes"][0]
    assert record["passes"] == {name: {"forward": 21, "backward": 20} for name in ("fmn-20-l2", "ddn-20-l2")}
    assert all(0 < value <= 1 for value in record["optimality"].values()) and len(record["optimality"]) == 2


def _digits(count):
    from bap_jax.data import digits

    images, _ = digits().test.read(np.arange(count))
    return images / np.float32(255) if images.dtype == np.uint8 else images
