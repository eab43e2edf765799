import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.schedules import SCHEDULES, Ramp, check_ramp, constant, due, gradual, iterative, one_shot

RAMP = Ramp(0.1, 0.9, 20, 120, 10)


def test_gradual_is_the_polynomial_schedule_of_optax():
    # the same cubic, whose step count optax wants as Python numbers
    reference = optax.polynomial_schedule(0.1, 0.9, power=3, transition_steps=100, transition_begin=20)
    steps = np.arange(0, 150)
    ours = jax.jit(jax.vmap(lambda t: gradual(t, **RAMP._asdict())))(steps)
    np.testing.assert_allclose(ours, [float(reference(t)) for t in steps], atol=1e-6)


def test_the_ends_are_exact():
    for name, schedule in SCHEDULES:
        final = float(schedule(120, **RAMP._asdict()))
        assert final == np.float32(0.9), name
    for schedule in (gradual, one_shot, iterative):
        assert float(schedule(19, **RAMP._asdict())) == np.float32(0.1)


@pytest.mark.parametrize("schedule", [gradual, one_shot, iterative, constant])
def test_schedules_never_fall_and_trace(schedule):
    traced = jax.jit(lambda t, ramp: schedule(t, **ramp._asdict()))
    values = [float(traced(jnp.int32(t), RAMP)) for t in range(0, 140, 3)]
    assert all(a <= b + 1e-7 for a, b in itertools.pairwise(values))


def test_a_ramp_of_no_length_jumps():
    assert [float(gradual(t, **Ramp(0.0, 0.5, 5, 5, 1)._asdict())) for t in (4, 5, 6)] == [0.0, 0.5, 0.5]


def test_iterative_prunes_the_same_factor_each_time():
    ramp = Ramp(0.0, 1 - 1 / 8, 0, 20, 10)  # three prunings: each keeps one half
    kept = [1 - float(iterative(t, **ramp._asdict())) for t in (0, 10, 20)]
    np.testing.assert_allclose(kept, [1 / 2, 1 / 4, 1 / 8], rtol=1e-6)


def test_iterative_to_nothing_left_is_finite():
    values = [float(iterative(t, **Ramp(0.0, 1.0, 0, 20, 10)._asdict())) for t in range(25)]
    assert np.all(np.isfinite(values)) and values[-1] == 1.0


def test_due_always_includes_the_end():
    steps = [t for t in range(200) if due(t, begin_step=3, end_step=50, frequency=20)]
    assert steps == [3, 23, 43, 50]
    assert [t for t in range(200) if due(t, begin_step=0, end_step=40, frequency=20)] == [0, 20, 40]


@pytest.mark.parametrize(
    ("ramp", "name"),
    [
        (Ramp(0.0, 1.5, 0, 1, 1), "final_sparsity"),
        (Ramp(-0.1, 0.5, 0, 1, 1), "initial_sparsity"),
        (Ramp(0.0, 0.5, -1, 1, 1), "begin_step"),
        (Ramp(0.0, 0.5, 5, 1, 1), "end_step"),
        (Ramp(0.0, 0.5, 0, 1, 0), "frequency"),
    ],
)
def test_senseless_ramps_are_refused_by_name(ramp, name):
    with pytest.raises(SettingError, match=name):
        check_ramp(ramp)
