"""Sparsity schedules over traced steps.

Every schedule has one signature, so that any of them fits the same slot: ``schedule(step, *, initial_sparsity, final_sparsity,
begin_step, end_step, frequency) -> sparsity``. All arguments may be Python numbers or traced scalars; a schedule ignores what
it has no use for. Use :class:`Ramp` to carry the five numbers together: ``gradual(step, **ramp._asdict())``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.types import Array

Number = float | int | Array
Schedule = Callable[..., Array]


class Ramp(NamedTuple):
    """When and how far to prune: from ``initial_sparsity`` at ``begin_step`` to ``final_sparsity`` at ``end_step``, the masks
    changing every ``frequency`` steps in between. Sparsities are zeros / prunable, in [0, 1].
    """

    initial_sparsity: Number
    final_sparsity: Number
    begin_step: int | Array
    end_step: int | Array
    frequency: int | Array


def check_ramp(ramp: Ramp) -> Ramp:
    """Refuses a ramp of Python numbers that makes no sense; traced numbers pass unchecked.

    Raises:
      SettingError: a sparsity outside [0, 1], a negative or reversed step range, a frequency below 1.

    Example:
      >>> check_ramp(Ramp(0.0, 0.9, 0, 100, 0))
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: frequency = 0: expected an integer of at least 1
    """
    for name in ("initial_sparsity", "final_sparsity"):
        value = getattr(ramp, name)
        if isinstance(value, float | int) and not 0 <= value <= 1:
            raise SettingError(name, value, "a number in [0, 1]")
    if isinstance(ramp.begin_step, int) and ramp.begin_step < 0:
        raise SettingError("begin_step", ramp.begin_step, "a step of at least 0")
    if isinstance(ramp.begin_step, int) and isinstance(ramp.end_step, int) and ramp.end_step < ramp.begin_step:
        raise SettingError("end_step", ramp.end_step, f"a step of at least begin_step = {ramp.begin_step}")
    if isinstance(ramp.frequency, int) and ramp.frequency < 1:
        raise SettingError("frequency", ramp.frequency, "an integer of at least 1")
    return ramp


def progress(step: Number, *, begin_step: Number, end_step: Number) -> Array:
    """How far a ramp has come: 0 until ``begin_step``, 1 from ``end_step`` on, linear in between.

    A ramp of no length jumps from 0 to 1 at ``begin_step``. Arguments are scalars, in steps, and may be traced; returns a float32
    scalar in [0, 1].

    Example:
      >>> [float(progress(t, begin_step=10, end_step=20)) for t in (0, 10, 15, 20, 30)]
      [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    step, begin, end = (jnp.asarray(x, jnp.int32) for x in (step, begin_step, end_step))
    fraction = (step - begin) / jnp.maximum(end - begin, 1)
    return jnp.where(end > begin, jnp.clip(fraction, 0.0, 1.0), (step >= begin).astype(jnp.float32))


def gradual(
    step: Number, *, initial_sparsity: Number, final_sparsity: Number, begin_step: Number, end_step: Number, frequency: Number = 1
) -> Array:
    """The cubic ramp: fast while much is redundant, slow towards the end.

    ``s(t) = s_f + (s_i - s_f) * (1 - clip((t - t0) / (t1 - t0), 0, 1))^3``

    Args:
      step: training step, scalar, may be traced.
      initial_sparsity, final_sparsity: in [0, 1].
      begin_step, end_step: the ramp's ends, in steps.
      frequency: ignored; see :func:`due` for when masks change.

    Returns:
      The sparsity, a float32 scalar.

    Example:
      >>> ramp = Ramp(0.0, 0.8, 0, 100, 10)
      >>> [round(float(gradual(t, **ramp._asdict())), 3) for t in (0, 50, 100, 150)]
      [0.0, 0.7, 0.8, 0.8]

    References:
      Zhu and Gupta, To prune, or not to prune, 2017, equation 1.
    """
    rest = (1.0 - progress(step, begin_step=begin_step, end_step=end_step)) ** 3
    return jnp.float32(final_sparsity) * (1.0 - rest) + jnp.float32(initial_sparsity) * rest  # exact at both ends


def one_shot(
    step: Number,
    *,
    initial_sparsity: Number = 0.0,
    final_sparsity: Number,
    begin_step: Number,
    end_step: Number = 0,
    frequency: Number = 1,
) -> Array:
    """``initial_sparsity`` before ``begin_step``, ``final_sparsity`` from it on.

    Example:
      >>> [round(float(one_shot(t, final_sparsity=0.9, begin_step=5)), 3) for t in (4, 5, 6)]
      [0.0, 0.9, 0.9]
    """
    begun = jnp.asarray(step, jnp.int32) >= jnp.asarray(begin_step, jnp.int32)
    return jnp.where(begun, jnp.float32(final_sparsity), jnp.float32(initial_sparsity))


def iterative(
    step: Number, *, initial_sparsity: Number, final_sparsity: Number, begin_step: Number, end_step: Number, frequency: Number
) -> Array:
    """Prune in equal shares of what is left: every ``frequency`` steps the kept fraction shrinks by the same factor.

    With ``n = ceil((t1 - t0) / frequency) + 1`` prunings, the first at ``begin_step`` and the last at ``end_step``, the kept
    fraction after the i-th is ``(1 - s_i) * ((1 - s_f) / (1 - s_i))^(i / n)``. A ``final_sparsity`` of 1 is reached at the last
    pruning only.

    Example:
      >>> ramp = Ramp(0.0, 0.75, 10, 20, 10)
      >>> [round(float(iterative(t, **ramp._asdict())), 3) for t in (9, 10, 19, 20, 99)]
      [0.0, 0.5, 0.5, 0.75, 0.75]

    References:
      Frankle and Carbin, The lottery ticket hypothesis, 2019 (iterative pruning).
    """
    step, begin, end, every = (jnp.asarray(x, jnp.int32) for x in (step, begin_step, end_step, frequency))
    num_prunings = -((begin - end) // every) + 1
    done = jnp.where(step >= end, num_prunings, jnp.clip((step - begin) // every + 1, 0, num_prunings))
    dense, sparse = 1.0 - jnp.float32(initial_sparsity), 1.0 - jnp.float32(final_sparsity)
    ratio = jnp.maximum(sparse, 1e-12) / jnp.maximum(dense, 1e-12)
    kept = dense * ratio ** (done / num_prunings)
    between = jnp.where(done == 0, jnp.float32(initial_sparsity), 1.0 - kept)
    return jnp.where(done == num_prunings, jnp.float32(final_sparsity), between)


def constant(
    step: Number,
    *,
    initial_sparsity: Number = 0.0,
    final_sparsity: Number,
    begin_step: Number = 0,
    end_step: Number = 0,
    frequency: Number = 1,
) -> Array:
    """``final_sparsity`` at every step: for sparse training, where the count stays and the positions move.

    Example:
      >>> round(float(constant(7, final_sparsity=0.5)), 3)
      0.5
    """
    return jnp.broadcast_to(jnp.float32(final_sparsity), jnp.shape(step))


def due(step: Number, *, begin_step: Number, end_step: Number, frequency: Number) -> Array:
    """Whether the masks change at ``step``: every ``frequency`` steps inside the ramp, and always once at its end.

    Without the last clause a ramp whose length is no multiple of ``frequency`` would stop short of its final sparsity.
    Arguments are scalars, in steps, and may be traced; returns a bool scalar.

    Example:
      >>> [t for t in range(12) if due(t, begin_step=2, end_step=9, frequency=3)]
      [2, 5, 8, 9]
    """
    step, begin, end, every = (jnp.asarray(x, jnp.int32) for x in (step, begin_step, end_step, frequency))
    inside = (step >= begin) & (step <= end)
    return inside & (((step - begin) % every == 0) | (step == end))


SCHEDULES: tuple[tuple[str, Schedule], ...] = (
    ("gradual", gradual),
    ("one-shot", one_shot),
    ("iterative", iterative),
    ("constant", constant),
)
