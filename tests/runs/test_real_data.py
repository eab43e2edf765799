"""MNIST and CIFAR-10, trained, killed, resumed and evaluated."""

import json
import signal
import subprocess

import pytest
import train_in_steps

from bap_jax.checkpoint import read_metrics
from bap_jax.runs.loop import load_data, train
from bap_jax.runs.settings import Settings

pytestmark = [pytest.mark.data, pytest.mark.soak]
LIGHT = Settings(attack_steps=2, validation_limit=32, validation_steps=2, validations=2, limit=128, log_every=1)


def test_cifar_is_killed_and_resumed(left, test_data_dir, python, environment, tmp_path):
    cifar = {"data": "cifar10", "data_dir": test_data_dir, "model": "resnet8", "augment": True, "batch_size": 8}
    settings = LIGHT.changed(**cifar, steps=24, ramp_end=0.2)
    command = [python, train_in_steps.__file__, json.dumps(settings.as_dict()), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for _ in range(19):  # an epoch, and so a checkpoint, is 16 steps
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    splits = load_data(settings)
    trained = train(settings, tmp_path / "killed", splits=splits, resume=True)
    assert trained.resumed_from and trained.resumed_from < 24
    train(settings, tmp_path / "whole", splits=splits)
    left(tmp_path / "killed").same_as(left(tmp_path / "whole"))


def test_mnist_is_trained_and_evaluated(bap, test_data_dir, monkeypatch, tmp_path):
    run = tmp_path / "run"
    light = ("--attack-steps", 2, "--validation-limit", 32, "--validation-steps", 2, "--validations", 1)
    size = ("--steps", 10, "--batch-size", 32)
    assert bap("train", "--data", "mnist", "--model", "lenet5", "--data-dir", test_data_dir, *light, *size, "--out", run)[0] == 0
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
