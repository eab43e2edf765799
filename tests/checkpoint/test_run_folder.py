"""A run folder is complete at every instant, belongs to one process, and refuses what does not belong to it."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.checkpoint import open_run, read_config, read_metrics, run_folder, versions
from bap_jax.errors import SettingError

CONFIG = {"seed": 0, "pruner": {"scope": "global", "ramp": [0.0, 0.6]}, "budget": {"epsilon": None}, "attack": {}}


def files(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def test_a_new_run(tmp_path):
    with open_run(tmp_path / "a" / "b", CONFIG) as run:
        assert not run.resumed and run.changed_versions == {}
        assert run.checkpoints == str(tmp_path / "a" / "b" / "checkpoints")
    assert files(run.folder) == ["config.json", "versions.json"]
    assert read_config(run.folder) == CONFIG
    assert read_metrics(run.folder) == []
    stored = json.loads((tmp_path / "a" / "b" / "versions.json").read_text())
    assert stored == versions()
    assert {"python", "bap_jax", "jax", "jaxlib", "flax", "optax", "orbax", "numpy", "platform", "device_kind"} < set(stored)
    assert stored["device_count"] == 8 and stored["backend"] == "cpu" and stored["jax"]


def test_metrics_are_there_as_soon_as_they_are_logged(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        run.log(1, loss=jnp.float32(0.1), accuracy=np.float64(0.5), curve=jnp.arange(2), note="x", best=True)
        run.log(np.int64(2), loss=float("nan"), curve=jnp.array([1.0, jnp.inf]))
        first, second = read_metrics(tmp_path)
        assert first == {"step": 1, "loss": float(np.float32(0.1)), "accuracy": 0.5, "curve": [0, 1], "note": "x", "best": True}
        assert second == {"step": 2, "loss": None, "curve": [1.0, None]}  # JSON knows neither NaN nor infinity
        with pytest.raises(SettingError, match=r"thing = .*expected a value that JSON can hold"):
            run.log(3, thing=object())
        assert len(read_metrics(tmp_path)) == 2


def test_an_occupied_folder_is_refused(tmp_path):
    open_run(tmp_path, CONFIG).close()
    with pytest.raises(SettingError, match=r"--out = .*expected an empty folder; --resume goes on"):
        open_run(tmp_path, CONFIG)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    for resume in (False, True):
        with pytest.raises(SettingError, match="--out"):
            open_run(tmp_path / "other", CONFIG, resume=resume)
    assert os.listdir(tmp_path / "other") == ["thesis.tex"]  # left as it was


def test_resume_in_an_empty_folder_starts(tmp_path):
    with open_run(tmp_path / "new", CONFIG, resume=True) as run:
        assert not run.resumed
    with open_run(tmp_path / "new", CONFIG, resume=True) as run:
        assert run.resumed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed = 1: expected 0, with which the run"),
        ({"pruner": {"scope": "layer", "ramp": [0.5, 0.6]}}, "pruner.scope = 'layer': expected 'global'"),
        ({"pruner": {"scope": "global", "ramp": (0.0, 0.7)}}, r"pruner.ramp = \[0.0, 0.7\]: expected \[0.0, 0.6\]"),
        ({"budget": {"epsilon": float("nan")}}, "budget.epsilon = nan: expected None"),
        ({"budget": {}}, r"budget.epsilon = \(not set\): expected None"),
        ({"attack": {"name": "pgd"}}, r"attack = \(not set\): expected {}"),
        ({"extra": 1}, r"extra = 1: expected \(not set\)"),
    ],
)
def test_the_first_setting_that_differs_is_named(tmp_path, change, message):
    open_run(tmp_path, CONFIG).close()
    with pytest.raises(SettingError, match=message):
        open_run(tmp_path, CONFIG | change, resume=True)
    open_run(tmp_path, CONFIG, resume=True).close()  # and the refusal has not kept the lock


def test_some_settings_may_differ(tmp_path):
    open_run(tmp_path, CONFIG).close()
    changed = CONFIG | {"pruner": {"scope": "layer", "ramp": []}, "devices": 2}
    with open_run(tmp_path, changed, resume=True, may_differ={"pruner", "devices"}) as run:
        assert run.resumed
    assert read_config(tmp_path) == CONFIG
    with pytest.raises(SettingError, match=r"pruner\.ramp"):
        open_run(tmp_path, changed, resume=True, may_differ={"pruner.scope", "devices"})


def test_other_versions_are_noted(tmp_path, monkeypatch):
    open_run(tmp_path, CONFIG).close()
    then = versions()
    monkeypatch.setattr(run_folder, "versions", lambda: then | {"jax": "99"})
    for _ in range(2):
        with open_run(tmp_path, CONFIG, resume=True) as run:
            assert run.changed_versions == {"jax": (then["jax"], "99")}
    assert json.loads((tmp_path / "versions.json").read_text()) == then | {"resumed_with": [then | {"jax": "99"}]}


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(SettingError, match=r"--out = .*expected a folder that can be"):
            open_run(tmp_path / name, CONFIG)
    with pytest.raises(SettingError, match="expected a path in the file system"):
        open_run("gs://bucket/run", CONFIG)


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", refuse)  # root, as in many containers, may write anywhere
    with pytest.raises(SettingError, match=r"expected a folder that can be written \(Permission denied\)"):
        open_run(tmp_path / "x", CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SettingError, match="expected a folder that can be written"):
        open_run(tmp_path, CONFIG)


def test_a_folder_belongs_to_one_process_as_long_as_it_lives(tmp_path):
    code = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.flock(f, 2); print(1, flush=True); time.sleep(99)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(SettingError, match="expected a folder that no other process is writing into"):
            open_run(tmp_path, CONFIG, resume=True)
        assert files(tmp_path) == []
    finally:
        process.kill()
        process.communicate()
    with open_run(tmp_path, CONFIG), pytest.raises(SettingError, match="no other process"):
        open_run(tmp_path, CONFIG, resume=True)


def test_lines_after_a_step_are_cut(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        for step in (1, 2, 2, 3, 4):
            run.log(step, loss=step / 8)
        whole = (tmp_path / "metrics.jsonl").read_bytes()
        run.truncate_after(2)
        assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2, 2]
        for step in (3, 4):
            run.log(step, loss=step / 8)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    with open_run(tmp_path, CONFIG, resume=True) as run:
        run.truncate_after(-1)
        assert read_metrics(tmp_path) == []


def test_a_line_cut_short_by_a_kill(tmp_path):
    with open_run(tmp_path, CONFIG) as run:
        run.log(1, loss=0.5)
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]
    with open_run(tmp_path, CONFIG, resume=True) as run:
        run.log(2, loss=0.25)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
    with pytest.raises(SettingError, match=r"metrics.jsonl, line 2 = .*expected a JSON object with a step"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("left", [[".config.json.tmp"], [".lock"], [".lock", ".config.json.tmp", "config.json"]])
def test_killed_while_starting(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text(json.dumps(CONFIG) if name == "config.json" else "{")
    with open_run(tmp_path, CONFIG, resume=True) as run:
        assert run.resumed == ("config.json" in left)
    assert files(tmp_path) == ["config.json", "versions.json"]
    assert read_config(tmp_path) == CONFIG


def test_a_configuration_that_json_cannot_hold(tmp_path):
    with pytest.raises(SettingError, match=r"config.pruner.ramp\[1\] = .*expected a value that JSON can hold"):
        open_run(tmp_path / "x", {"pruner": {"ramp": [0.0, jnp.float32(1)]}})
    assert not (tmp_path / "x").exists()


def test_no_run_there(tmp_path):
    with pytest.raises(SettingError, match=r"run folder = .*expected a folder with a config.json"):
        read_config(tmp_path)


def test_other_hosts_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with open_run(tmp_path / "x", CONFIG) as run:
        run.log(1, loss=0.5)
        run.truncate_after(0)
    assert not (tmp_path / "x").exists()
