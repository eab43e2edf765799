"""MNIST and CIFAR-10 through the command line."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bap_jax.checkpoint import read_metrics

pytestmark = [pytest.mark.data, pytest.mark.soak]


def train(name: str, run: Path, data_dir: str, *more) -> list[str]:
    common = ("--data", name, "--data-dir", data_dir, "--log-every", 1, "--attack-steps", 2, "--out", run)
    light = ("--validation-limit", 32, "--validation-steps", 2, "--validations", 2, "--limit", 512)
    return ["train", *(str(argument) for argument in (*common, *light, *more))]


def test_cifar_is_killed_and_resumed(bap, left, test_data_dir, python, environment, tmp_path):
    steps = ("--model", "resnet8", "--augment", "--steps", 24, "--batch-size", 8, "--ramp-end", 0.2)
    killed = train("cifar10", tmp_path / "killed", test_data_dir, *steps)
    process = subprocess.Popen([python, "-m", "bap_jax", *killed], env=environment, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not any(path.name.isdigit() for path in (tmp_path / "killed" / "checkpoints").glob("*")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    code, output, error = bap(*killed, "--resume")
    assert code == 0 and "resumed from step" in output, error
    assert bap(*train("cifar10", tmp_path / "whole", test_data_dir, *steps))[0] == 0
    left(tmp_path / "killed").same_as(left(tmp_path / "whole"))


def test_mnist_is_trained_and_evaluated(bap, test_data_dir, monkeypatch, tmp_path):
    run = tmp_path / "run"
    assert bap(*train("mnist", run, test_data_dir, "--model", "lenet5", "--steps", 10, "--batch-size", 32))[0] == 0
    assert read_metrics(run)[-1]["step"] == 10
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data_dir": "/no/such/folder"}))
    plan = ("evaluate", run, "--epsilon", "0,0.1", "--steps", 2, "--limit", 50)
    code, _, error = bap(*plan)
    assert code == 2 and "bap data prepare mnist" in error  # the data has gone; --data-dir says where it is now
    code, output, error = bap(*plan, "--data-dir", test_data_dir)
    assert code == 0 and "pgd-2 linf" in output, error
    (run / "config.json").write_text(json.dumps(config | {"data_dir": None}))
    monkeypatch.setenv("TFDS_DATA_DIR", test_data_dir)
    assert bap(*plan)[0] == 0
