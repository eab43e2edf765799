"""Every epoch or five seconds, whichever comes later."""

import pytest

from bap_jax.checkpoint import SaveInterval
from bap_jax.errors import SettingError


def saves(seconds_per_step, steps=10, last=100, **settings):
    now = [0.0]
    interval = SaveInterval(steps, clock=lambda: now[0], **settings)
    found = []
    for step in range(settings.get("start", 0) + 1, last + 1):
        now[0] += seconds_per_step
        if interval.due(step):
            found.append(step)
    return found


def test_long_epochs_are_saved_as_they_end():
    assert saves(1.0) == list(range(10, 101, 10))


def test_short_epochs_wait_for_five_seconds():
    assert saves(0.125) == [40, 80]
    assert saves(0.125, seconds=0) == list(range(10, 101, 10))


def test_a_clock_that_jumps_costs_one_interval_at_most():
    """Forwards, it saves at once; back, the seconds begin anew instead of being waited for."""
    now = iter([1000.0, 5000.0, 5001.0, 10.0, 14.0, 15.0])
    due = SaveInterval(1, 5.0, clock=lambda: next(now)).due
    assert [due(step) for step in range(1, 6)] == [True, False, False, False, True]


def test_the_interval_starts_where_training_resumes():
    assert saves(1.0, start=55) == [65, 75, 85, 95]


def test_refusals():
    with pytest.raises(SettingError, match="steps = 0: expected at least 1"):
        SaveInterval(0)
    with pytest.raises(SettingError, match="seconds = -1: expected 0 or more"):
        SaveInterval(1, seconds=-1)
