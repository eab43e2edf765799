"""What `bap bench` measures, and that it neither hangs nor hides a step that does."""

import json
import math

import jax
import pytest

from bap_jax.bench import step, steps
from bap_jax.bench.process import Stalled
from bap_jax.timing import Sample

SMALL = ("--model", "plugins_for_tests:small", "--batch-size", 8, "--attack-steps", 1)
WITH_CONVOLUTION = """
import flax.linen as nn
from bap_jax.models import conv_layer
from bap_jax.types import Outputs

class Network(nn.Module):
    num_classes: int
    conv: str

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(conv_layer(4, 3, conv=self.conv, strides=2)(images))
        return Outputs(nn.Dense(self.num_classes)(x.reshape(len(x), -1)), {})

def network(num_classes, conv, **_):
    return Network(num_classes, conv)
"""


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(step, "SAMPLE_SECONDS", 0.001)
    monkeypatch.setattr(steps, "first_steps", lambda settings: {})  # processes of their own: tests/bench/test_suites.py


def ratios_in(path) -> dict[str, dict]:
    record = json.loads(path.read_text())
    for row in record["ratios"]:
        for clock in ("wall", "processor"):
            assert 0 < row[clock]["low"] <= row[clock]["median"] <= row[clock]["high"] < math.inf
    return {row["what"]: row for row in record["ratios"]}


def test_ratios_steps_and_figures(bap, tmp_path, monkeypatch):
    (tmp_path / "network_of_this_test.py").write_text(WITH_CONVOLUTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    jax.devices()  # XLA reads its flags once: this process, and every test after this one, keeps those it has
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0", prepend=" ")  # the other processes compile sooner
    out = tmp_path / "there" / "steps.json"
    arguments = ("--model", "network_of_this_test:network", "--batch-size", 8, "--attack-steps", 1, "--rounds", 2)
    status, output, _ = bap("bench", *arguments, "--devices", 2, "--out", out)
    assert status == 0
    assert "blind / uniform" in output and "digits, network_of_this_test:network, batch 8, PGD-1" in output
    ratios = ratios_in(out)
    assert list(ratios) == [
        "blind / uniform",
        "fast / plain convolutions",
        "2 devices / 1 device",
        "masks / step, 1 update in 30",
        "masks / step, at an update",
    ]
    steps = json.loads(out.read_text())["steps"]
    compiled = {name for name, line in steps.items() if line["compile_seconds"]}
    assert compiled == {"uniform budget", "blind", "blind, plain convolutions"}
    assert all(line["seconds"] * line["per_second"] == pytest.approx(1) for line in steps.values())


class Stuck:
    def __init__(self, devices, settings):
        self.devices = devices

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def time(self):
        if self.devices > 1:
            raise Stalled("no answer")
        return Sample(1.0, 1.0)


def test_a_stalled_step_is_told_and_the_rest_measured(bap, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "StepProcess", Stuck)
    out = tmp_path / "steps.json"
    status, output, _ = bap("bench", *SMALL, "--rounds", 1, "--devices", 2, "--out", out)
    assert status == 1 and "no answer" in output
    record = json.loads(out.read_text())
    assert record["stalled"] == "no answer"
    assert list(ratios_in(out)) == ["blind / uniform", "masks / step, 1 update in 30", "masks / step, at an update"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rounds", 0], ["--rounds = 0", "at least 1"]),
        (["--devices", 0], ["--devices = 0", "at least 1"]),
        (["--devices", 2, "--batch-size", 9], ["--batch-size = 9", "8 or 10"]),
        (["--devices", 1, "--batch-size", 5000], ["--batch-size = 5000", "1259"]),
        (["--model", "lenet6"], ["model = 'lenet6'", "lenet5"]),
        (["--attack-steps", 0], ["--attack-steps = 0", "at least 1"]),
    ],
)
def test_refusals(refused, arguments, expected):
    line = refused("bench", *arguments)
    assert all(part in line for part in expected), line
