"""One run on several hosts: processes of this machine stand for them."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from bap_jax.cli import distributed
from bap_jax.runs.loop import train
from bap_jax.runs.settings import Settings

OWN = "plugins_for_tests"
SETTINGS = Settings(
    data=f"{OWN}:blobs",
    model=f"{OWN}:small",
    batch_size=8,
    steps=12,
    log_every=3,
    validations=2,
    validation_steps=1,
    validation_epsilon="0,0.1",
    attack_steps=1,
    cutoff="quantile:0.5",
)
UNSET = ("XLA_FLAGS", "NPROC", "JAX_NUM_CPU_DEVICES")


@pytest.fixture
def hosts(python, environment):
    """Starts the run of some settings on so many processes; they are gone at the end."""
    started = []

    def start(settings, out, count, *more):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        told = ["--" + name.replace("_", "-") for name in ("data", "model", "batch_size", "steps", "log_every", "validations")]
        command = [python, "-m", "bap_jax", "train", "--out", str(out), *more]
        for name in told:
            command += [name, str(getattr(settings, name[2:].replace("-", "_")))]
        command += ["--validation-steps", "1", "--validation-epsilon", "0,0.1", "--attack.num-steps", "1"]
        command += ["--budget.cutoff", "quantile:0.5", "--distributed"]
        clean = {name: value for name, value in environment.items() if name not in UNSET}
        for rank in range(count):
            process = subprocess.Popen(
                [*command, f"{address},{rank},{count}"], env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            started.append(process)
        return started[-count:]

    yield start
    for process in started:
        process.kill()  # its child ends with it


def ended(processes):
    answers = [process.communicate(timeout=240) for process in processes]
    return [process.returncode for process in processes], answers


def same(mine, theirs):
    assert mine.latest == theirs.latest and mine.state.keys() == theirs.state.keys()
    for path, leaf in mine.state.items():
        np.testing.assert_allclose(np.float64(leaf), np.float64(theirs.state[path]), rtol=1e-5, atol=1e-6, err_msg=path)
    for line, other in zip(mine.metrics, theirs.metrics, strict=True):
        assert line.keys() == other.keys() and line["step"] == other["step"]
        assert all(line[name] == pytest.approx(value, rel=1e-4, abs=1e-5) for name, value in other.items() if name != "phase")


@pytest.mark.soak
def test_two_hosts_train_what_one_does(hosts, left, tmp_path):
    train(SETTINGS, tmp_path / "one")
    codes, answers = ended(hosts(SETTINGS, tmp_path / "two", 2))
    assert codes == [0, 0], answers
    assert "trained" in answers[0][0] and not answers[1][0].replace("[Gloo]", "").strip().startswith("trained")
    same(left(tmp_path / "two"), left(tmp_path / "one"))


def child_of(process):
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def wait_for_lines(path, count, processes):
    end = time.monotonic() + 200
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < end and all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.02)


@pytest.mark.soak
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="finds the child in /proc")
def test_a_host_that_is_lost_ends_the_others_and_a_stop_on_one_stops_all(hosts, left, tmp_path):
    """Four processes; one is killed; two go on and one of these is asked to stop; one process ends the run."""
    settings, out = SETTINGS.changed(steps=600, validations=1), tmp_path / "run"
    train(settings, tmp_path / "whole")
    processes = hosts(settings, out, 4)
    wait_for_lines(out / "metrics.jsonl", 30, processes)
    began = time.monotonic()
    os.kill(child_of(processes[2]), signal.SIGKILL)
    codes, answers = ended(processes)
    assert time.monotonic() - began < 60
    assert codes == [distributed.LOST, distributed.LOST, 137, distributed.LOST], answers
    for number, (_, error) in enumerate(answers):
        said = "ended by SIGKILL" if number == 2 else "another process of this run was lost"
        assert said in error.splitlines()[-1] and "--resume goes on" in error.splitlines()[-1]

    lines = (out / "metrics.jsonl").read_bytes().count(b"\n")
    processes = hosts(settings, out, 2, "--resume", "--shard", "state")
    wait_for_lines(out / "metrics.jsonl", lines + 30, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, answers = ended(processes)
    assert codes == [143, 143], answers
    assert len({output.strip().splitlines()[-1] for output, _ in answers[:1]}) == 1

    trained = train(settings, out, resume=True)
    assert trained.resumed_from and trained.steps == 600
    mine, theirs = left(out), left(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, mine.network.masks, theirs.network.masks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), mine.network.params, theirs.network.params)


@pytest.mark.parametrize("told", ["", "auto,0,2", "host,0,2", "host:1,2,2", "host:1,0", "host:1,-1,2"])
def test_what_cannot_be_joined_is_refused(told, refused, monkeypatch, tmp_path):
    monkeypatch.setenv(distributed.CHILD, "1")
    monkeypatch.setattr(distributed, "leave", lambda status: exit(status))
    line = refused("train", "--out", tmp_path / "run", f"--distributed={told}")
    assert line.startswith(f"bap: error: --distributed = '{told}': expected auto, or COORDINATOR:PORT,RANK,WORLD")
