"""Signals ask a loop to stop, to save, or to stop at once."""

import os
import signal

import pytest

from bap_jax.runs.signals import SAVING, Interrupted, StopAtOnce, stop_signals


@pytest.mark.parametrize("number", SAVING)
def test_asked_to_save_a_loop_goes_on(number, capfd):
    with stop_signals() as asked:
        assert not asked.save()
        os.kill(os.getpid(), number)
        assert asked.save() and not asked.save() and not asked()
    assert "saving after this step" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_says_by_which_and_twice_stops_at_once(number, monkeypatch):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped, stop_signals() as asked:
        os.kill(os.getpid(), number)
        assert asked()
        raise Interrupted("saved")
    assert stopped.value.status == 128 + number
    with pytest.raises(StopAtOnce) as at_once, stop_signals():
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr("bap_jax.runs.signals.TWICE", 0.0)
        os.kill(os.getpid(), number)
    assert at_once.value.status == 128 + number and signal.getsignal(number) is before
