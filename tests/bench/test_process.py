"""A step in a process of its own: it is waited for, but not for ever."""

import pytest

from bap_jax.bench import process
from bap_jax.bench.process import Stalled, StepProcess
from bap_jax.runs.settings import Settings


def test_waiting_ends():
    with StepProcess(1, Settings(data="digits", model="mlp").as_dict(), seconds=0.2) as other:
        with pytest.raises(Stalled, match=r"1 CPU devices gave no answer within 0.2 s"):
            other.time()
        assert other.process.poll() is not None


def test_a_process_that_ends_by_itself_is_not_waited_for(capfd):
    settings = Settings(data="digits", model="no such model").as_dict()
    with StepProcess(1, settings, seconds=100) as other, pytest.raises(Stalled):
        other.time()
    assert "no such model" in capfd.readouterr().err


def test_the_other_process_counts_its_own_devices():
    seen = process.clean({"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_NUM_CPU_DEVICES": "1", "A": "b"})
    assert seen == {"XLA_FLAGS": "", "A": "b", "JAX_PLATFORMS": "cpu"}
