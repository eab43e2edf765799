"""A run that is stopped or killed at any instant ends as the uninterrupted one, bit for bit: state, metrics, best checkpoint."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import train_in_steps

from bap_jax.runs.loop import train
from bap_jax.runs.settings import Settings

OWN = "plugins_for_tests"
# 24 examples in batches of 8: an epoch is 3 steps, so that a checkpoint is due at almost any time
BLIND = Settings(
    data=f"{OWN}:blobs",
    model=f"{OWN}:small",
    batch_size=8,
    steps=60,
    ramp_end=0.3,
    log_every=1,
    validations=12,
    attack_steps=2,
    keep=1,
)
VARIED = BLIND.changed(augment=True, cutoff="running-mean:0.9")


def arguments(settings: Settings) -> list[str]:
    """The settings as a command line."""
    default, given = Settings().as_dict(), []
    for name, value in settings.as_dict().items():
        if value != default.get(name):
            given += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return given


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folders of uninterrupted runs, trained when first asked for."""
    found: dict[Settings, Path] = {}

    def folder(settings: Settings) -> Path:
        if settings not in found:
            found[settings] = tmp_path_factory.mktemp("uninterrupted") / "run"
            train(settings, found[settings])
        return found[settings]

    return folder


def wait_for(condition, process, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize(("number", "after_lines"), [(signal.SIGINT, 0), (signal.SIGTERM, 8)])
def test_a_run_that_was_asked_to_stop(number, after_lines, bap, left, uninterrupted, environment, python, tmp_path):
    """With no line logged yet, the first step is still being compiled."""
    run = tmp_path / "a run"
    command = [python, "-m", "bap_jax", "train", *arguments(BLIND), "--out", str(run)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (run / "checkpoints").is_dir() and lines_of(run / "metrics.jsonl") >= after_lines, process)
    time.sleep(0.3 if after_lines == 0 else 0.0)
    process.send_signal(number)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number, error
    assert "stopping after this step and saving" in error and "--resume goes on from there" in output
    code, _, message = bap("train", *arguments(BLIND), "--out", run)
    assert code == 2 and "--resume" in message
    code, output, _ = bap("train", *arguments(BLIND), "--out", run, "--resume")
    assert code == 0 and "resumed from step" in output
    left(run).same_as(left(uninterrupted(BLIND)))


def kill_often(settings: Settings, run: Path, kills: int, seed: int, environment, python, steps_between: int) -> int:
    """Kills a run at random instants and goes on with it; returns how many kills found it still at work."""
    chance, landed = random.Random(seed), 0
    for _ in range(kills):
        command = [python, train_in_steps.__file__, json.dumps(settings.as_dict()), str(run)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(chance.randrange(1, steps_between)):
            if not process.stdout.readline():
                break
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        landed += process.wait() == -signal.SIGKILL
        process.stdout.close()
    return landed


def test_a_run_that_was_killed(left, uninterrupted, environment, python, tmp_path):
    """Augmented, with a cutoff carried in the state."""
    run = tmp_path / "run"
    assert kill_often(VARIED, run, kills=2, seed=0, environment=environment, python=python, steps_between=25) == 2
    trained = train(VARIED, run, resume=True)
    assert trained.resumed_from and trained.resumed_from < 60
    left(run).same_as(left(uninterrupted(VARIED)))


@pytest.mark.soak
@pytest.mark.parametrize(("settings", "seed"), [(BLIND, 1), (VARIED, 2)], ids=["blind", "varied"])
def test_a_run_that_was_killed_often(settings, seed, left, uninterrupted, environment, python, tmp_path):
    digits = {"data": "digits", "model": "mlp", "batch_size": 32, "limit": 128, "validation_limit": 64}
    settings = settings.changed(**digits, steps=150, seed=seed)
    run = tmp_path / "run"
    assert kill_often(settings, run, kills=6, seed=seed, environment=environment, python=python, steps_between=30) > 3
    train(settings, run, resume=True)
    left(run).same_as(left(uninterrupted(settings)))


SMALL = Settings(
    data=f"{OWN}:blobs", model=f"{OWN}:small", budget="uniform", epsilon="0.1", attack="fgsm", batch_size=8, steps=12, log_every=1
)


class Stop(Exception):
    """Ends a run from its progress callback, as a crash would."""


def crash_at(step: int):
    def progress(done, total, metrics):
        if done == step:
            raise Stop

    return progress


def test_resume_in_an_empty_folder_starts_and_in_a_finished_one_just_says_so(bap, left, tmp_path):
    given = (*arguments(SMALL), "--out", tmp_path / "run", "--resume")
    code, output, _ = bap("train", *given)
    assert code == 0 and "trained" in output and "finished already" not in output
    before = left(tmp_path / "run")
    code, output, _ = bap("train", *given)
    assert code == 0 and "finished already, at step 12; nothing was trained" in output
    left(tmp_path / "run").same_as(before)


def test_where_checkpoints_fell_changes_nothing(left, tmp_path):
    train(SMALL, tmp_path / "often", save_seconds=0.0)
    train(SMALL, tmp_path / "seldom", save_seconds=1e9)
    left(tmp_path / "often").same_as(left(tmp_path / "seldom"))


def test_a_crash_at_every_step(left, tmp_path):
    train(SMALL, tmp_path / "whole")
    for step in range(1, 12):
        with pytest.raises(Stop):
            train(SMALL, tmp_path / "run", resume=True, save_seconds=0.0, progress=crash_at(step))
        if step % 4 == 0:  # a crash in the middle of writing a line
            with open(tmp_path / "run" / "metrics.jsonl", "ab") as file:
                file.write(b'{"step": 99, "lo')
    train(SMALL, tmp_path / "run", resume=True, save_seconds=0.0)
    left(tmp_path / "run").same_as(left(tmp_path / "whole"))


def test_several_devices_agree_and_a_run_moves_between_them(left, tmp_path):
    train(SMALL, tmp_path / "one", devices=1)
    train(SMALL, tmp_path / "eight", devices=8)
    for devices, stop in ((8, 5), (4, 8), (2, None)):
        context = pytest.raises(Stop) if stop else pytest.MonkeyPatch.context()
        with context:
            progress = crash_at(stop) if stop else None
            train(SMALL, tmp_path / "moved", devices=devices, resume=True, save_seconds=0.0, progress=progress)
    one = left(tmp_path / "one")
    for other in (left(tmp_path / "eight"), left(tmp_path / "moved")):
        for mine, theirs in zip(jax.tree.leaves(one.network.masks), jax.tree.leaves(other.network.masks), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        for path, leaf in one.state.items():
            np.testing.assert_allclose(leaf, other.state[path], rtol=1e-4, atol=1e-6, err_msg=path)
        losses = [[line["loss"] for line in run.metrics if "loss" in line] for run in (one, other)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
