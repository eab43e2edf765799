"""What `bap bench` measures, and that it neither hangs nor hides a step that does."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import pytest

from bap_jax.bench import process, step, steps, sweep
from bap_jax.bench.process import Stalled, StepProcess
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.execute import BOOK
from bap_jax.timing import Sample, calls_for, in_turn, median, ratio

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


def test_the_median_of_ratios_is_not_the_ratio_of_medians():
    these, those = ([Sample(seconds, 2 * seconds) for seconds in row] for row in ([1.0, 4.0, 30.0], [1.0, 2.0, 60.0]))
    assert ratio(these, those) == ratio(these, those, "processor") == (1.0, 0.5, 2.0)
    assert (median(these), median(those, "processor")) == (4.0, 4.0)


def test_each_round_begins_with_another():
    order = []

    def timed(name):
        return lambda: order.append(name) or Sample(1.0, 1.0)

    samples = in_turn({name: timed(name) for name in "abc"}, 4)
    assert "".join(order) == "abcbcacababc"
    assert [len(taken) for taken in samples.values()] == [4, 4, 4]


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 1000), (0.03, 7), (0.2, 1), (9.0, 1)])
def test_a_sample_is_long_enough(seconds, calls):
    assert calls_for(seconds, at_least=0.2) == calls


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(step, "SAMPLE_SECONDS", 0.001)


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
    assert record["stalled"] == "no answer" and record["utilisation"] == []
    assert list(ratios_in(out)) == ["blind / uniform", "masks / step, 1 update in 30", "masks / step, at an update"]


def test_waiting_ends():
    with StepProcess(1, Settings(data="digits", model="mlp").as_dict(), seconds=0.2) as process:
        with pytest.raises(Stalled, match=r"1 CPU devices gave no answer within 0.2 s"):
            process.time()
        assert process.process.poll() is not None


def test_a_process_that_ends_by_itself_is_not_waited_for(capfd):
    settings = Settings(data="digits", model="no such model").as_dict()
    with StepProcess(1, settings, seconds=100) as process, pytest.raises(Stalled):
        process.time()
    assert "no such model" in capfd.readouterr().err


def test_the_other_process_counts_its_own_devices():
    seen = process.clean({"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_NUM_CPU_DEVICES": "1", "A": "b"})
    assert seen == {"XLA_FLAGS": "", "A": "b", "JAX_PLATFORMS": "cpu"}


def test_operations_of_a_forward_pass():
    settings = Settings(data="digits", model="mlp", batch_size=16)
    products = 2 * 16 * (64 * 256 + 256 * 128 + 128 * 10)
    assert products <= steps.forward_flops(settings) <= 1.05 * products


def test_operations_of_a_step_by_hand():
    """Five steps of the attack, training on two images each, a search of two steps, three bisections, its far end."""
    settings = Settings(attack_steps=5, search_steps=2, num_bisections=3)
    assert steps.model_flops(settings, 1.0) == 10 + 6 + 4 + 3
    assert steps.model_flops(dataclasses.replace(settings, halving="linear"), 1.0) == 10 + 6 + 4 + 3 + 1


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


def test_a_sweep_against_a_process_per_cell_and_a_loop(bap, monkeypatch, tmp_path):
    jobs = []

    def timed(job):
        jobs.append(job)
        out = Path(job.out)
        out.mkdir()
        (out / BOOK).write_text(json.dumps({"groups": [{"cells": ["a", "b"], "lanes": 2, "why": "measured"}]}))
        seconds = {"auto": 8.0, "loop": 10.0 if job.cell is None else 2.0}[job.together]
        return Sample(seconds, 2 * seconds)

    monkeypatch.setattr(sweep, "timed", timed)
    out = tmp_path / "figures.json"
    code, output, error = bap("bench", "--sweep", "--sweep-steps", 3, "--model", "mlp", "--out", out)
    assert code == 0 and "2 cells, 2 at once: measured" in output, error
    found = json.loads(out.read_text())["ratios"]
    assert [row["wall"]["median"] for row in found] == [row["processor"]["median"] for row in found] == [0.25, 0.8]
    assert [row["goal"] for row in found] == [0.3, None]
    alone = [job.sweep().cells() for job in jobs if job.cell is not None]
    whole = [job.sweep().cells() for job in jobs if job.cell is None]
    assert whole[0] == whole[1] == [cell for cells in alone for cell in cells] and {len(cells) for cells in alone} == {1}
    assert len(whole[0]) == 16 and {cell.steps for cell in whole[0]} == {3}


def test_the_processes_of_a_sweep_are_timed_and_must_not_fail(tmp_path):
    job = sweep.OneProcess(Settings(steps=0).as_dict(), str(tmp_path / "out"), "loop", 3)
    with pytest.raises(RuntimeError, match="--steps = 0"):
        sweep.timed(job)
