"""What `bap bench --suite` measures besides steps and sweeps: every row a ratio of what its arms took."""

import math

import pytest

from bap_jax.bench import step
from bap_jax.bench.autoattack import time_autoattack
from bap_jax.bench.compiling import first_steps
from bap_jax.bench.suites import SUITES
from bap_jax.runs.settings import Settings

SMALL = Settings(data="digits", model="mlp", batch_size=8, attack_steps=1)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(step, "SAMPLE_SECONDS", 0.001)


def rows_of(made) -> list[str]:
    record, rows = made
    for row in rows:
        assert 0 < row.ratio.low <= row.ratio.median <= row.ratio.high < math.inf
    assert all(line["seconds"] * line["per_second"] == pytest.approx(1) for line in record["steps"].values())
    return [row.what for row in rows]


def test_masks_by_bisection_are_those_by_sorting():
    assert rows_of(SUITES["mask"](SMALL, rounds=1, progress=lambda done: None)) == [
        "bisection / jnp.sort",
        "bisection / numpy.partition on the host",
    ]


def test_attacks():
    record, rows = SUITES["attack"](SMALL, rounds=1, progress=lambda done: None)
    assert rows_of((record, rows)) == ["PGD-1 / a forward pass"]
    assert record["steps"]["PGD"]["images_per_second"] == pytest.approx(8 / record["steps"]["PGD"]["seconds"])


@pytest.mark.soak
@pytest.mark.parametrize("name", ["io", "import"])
def test_the_others(name):
    assert rows_of(SUITES[name](SMALL, rounds=1, progress=lambda done: None))


@pytest.mark.soak
def test_autoattack_and_first_steps():
    assert rows_of(time_autoattack(SMALL, rounds=1, progress=lambda done: None, steps=20, queries=20)) == ["AutoAttack / PGD-100"]
    found = first_steps(SMALL)
    assert found["cached"]["compile_seconds"] < found["cold"]["compile_seconds"] and found["cold"]["peak_bytes"] > 1e7
