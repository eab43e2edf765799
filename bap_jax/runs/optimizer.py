"""Optimisers: Adam, AdamW, SGD or the user's own, and the shape that their rate has over training.

The rate and the shape are leaves of the optimiser's state. So runs at other rates and of other lengths share one compiled step,
and each follows the schedule that its own state carries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bap_jax.runs.options import SGD, Rated
from bap_jax.runs.parsing import parse_fractions
from bap_jax.runs.settings import Settings, rate_factors
from bap_jax.types import Array, RunInfo

ONE_CYCLE = 1 / 25, 1 / 25e4  # of the rate, at the begin and at the end: optax's div_factor and final_div_factor


class Shape(NamedTuple):
    """A rate over training, as a part of its largest value, in pieces that are straight or half a cosine."""

    starts: Array  # [n + 1] int32: the step that each piece begins at, and the one that the last ends at
    first: Array  # [n] in [0, 1], at the begin of a piece
    last: Array  # [n] in [0, 1], toward its end
    cosine: Array  # [n] bool: half a cosine from the one to the other, else a straight line


class ShapeState(NamedTuple):
    """What :func:`scale_by_shape` carries."""

    step: Array  # int32 scalar: updates made so far
    shape: Shape


def rate_shape(settings: Settings, num_steps: int) -> Shape:
    """The shape of a run's rate.

    Args:
      settings: those of the run; its schedule, warm-up, boundaries, factors and cycles are read.
      num_steps: how many steps it has in all.

    Returns:
      The shape, its pieces in steps.

    Example:
      >>> shape = rate_shape(Settings(rate_schedule="piecewise", rate_warmup=0.1), 100)
      >>> shape.starts.tolist(), [round(shape_at(shape, step).item(), 4) for step in (0, 5, 10, 49, 50, 99)]
      ([0, 10, 50, 75, 100], [0.0, 0.5, 1.0, 1.0, 0.1, 0.01])
    """
    pieces = _pieces(settings)
    starts = [*(round(begin * num_steps) for begin, *_ in pieces), num_steps]
    _, first, last, cosine = zip(*pieces, strict=True)
    return Shape(jnp.array(starts, jnp.int32), jnp.array(first, jnp.float32), jnp.array(last, jnp.float32), jnp.array(cosine))


def _pieces(settings: Settings) -> list[tuple[float, float, float, bool]]:
    """(begin as a fraction of training, first value, last value, whether a cosine) of every piece."""
    warmup = settings.rate_warmup or 0.0
    if settings.rate_schedule == "one-cycle":
        top, (first, last) = 0.3 if settings.rate_warmup is None else warmup, ONE_CYCLE
        return [(0.0, first, 1.0, True), (top, 1.0, last, True)]
    if settings.rate_schedule == "cyclic":
        count, top = settings.rate_cycles, 0.5 if settings.rate_warmup is None else warmup
        turns = [((cycle, 0.0, 1.0), (cycle + top, 1.0, 0.0)) for cycle in range(count)]
        return [(begin / count, first, last, False) for both in turns for begin, first, last in both]
    if settings.rate_schedule == "staircase":
        count = settings.rate_cycles
        return [(third / (3 * count), 0.1 ** (third % 3), 0.1 ** (third % 3), False) for third in range(3 * count)]
    found = [(0.0, 0.0, 1.0, False)] if warmup else []
    if settings.rate_schedule != "piecewise":
        return [*found, (warmup, 1.0, 1.0 if settings.rate_schedule == "constant" else 0.0, settings.rate_schedule == "cosine")]
    boundaries = parse_fractions("--rate-boundaries", settings.rate_boundaries)
    factors = rate_factors(settings)
    heights = [math.prod(factors[:number]) for number in range(len(factors) + 1)]
    return [*found, *((begin, height, height, False) for begin, height in zip((warmup, *boundaries), heights, strict=True))]


def shape_at(shape: Shape, count: Array | int) -> Array:
    """The value of a shape, in [0, 1], at the update number ``count``, the first being 0; after its end, that of its end."""
    piece = jnp.sum(count >= shape.starts[1:-1])
    begin, end = shape.starts[piece], shape.starts[piece + 1]
    part = jnp.clip((count - begin) / jnp.maximum(end - begin, 1), 0.0, 1.0)
    part = jnp.where(shape.cosine[piece], (1 - jnp.cos(jnp.pi * part)) / 2, part)
    return shape.first[piece] + (shape.last[piece] - shape.first[piece]) * part


def scale_by_shape(shape: Shape) -> optax.GradientTransformation:
    """Multiplies updates by a shape, which its state carries: an update is given another schedule by another state.

    Args:
      shape: what :meth:`init` puts into the state.
    """

    def init(params) -> ShapeState:
        return ShapeState(jnp.zeros([], jnp.int32), shape)

    def update(updates, state: ShapeState, params=None):
        factor = shape_at(state.shape, state.step)
        scaled = jax.tree.map(lambda update: update * factor.astype(update.dtype), updates)
        return scaled, ShapeState(optax.safe_increment(state.step), state.shape)

    return optax.GradientTransformation(init, update)


def shaped(settings: Settings, num_steps: int | None, base: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser of a run: what fills its slot, times the shape of the rate; the user's own gets clipped gradients.

    Args:
      settings: those of the run.
      num_steps: how many steps it has; only a schedule needs it.
      base: what fills the slot. Momentum, rate and decay of the user's own are for itself to know.

    Raises:
      ValueError: a schedule without a length.
    """
    if not settings.knows("optimizer") and settings.gradient_clip is not None:
        base = optax.chain(*_clip(settings), base)
    if not settings.scheduled():
        return base
    if num_steps is None:
        raise ValueError(f"the schedule {settings.rate_schedule} needs the number of steps")
    return optax.chain(base, scale_by_shape(rate_shape(settings, num_steps)))


def _clip(settings: Settings) -> list[optax.GradientTransformation]:
    return [] if settings.gradient_clip is None else [optax.clip_by_global_norm(settings.gradient_clip)]


def _at_rate(settings: Settings, own: Rated, step: Callable, l2: bool = True) -> optax.GradientTransformation:
    """The gradient clipped, the decay added where it is L2, then the step of a rate.

    The rate is a leaf of the state, so that runs at different rates share a compile.
    """
    before = [*_clip(settings), *([optax.add_decayed_weights(own.weight_decay)] if l2 and own.weight_decay else [])]

    def at(learning_rate: Array) -> optax.GradientTransformation:
        return optax.chain(*before, step(learning_rate))

    return optax.inject_hyperparams(at)(learning_rate=own.learning_rate)


def adam(settings: Settings, info: RunInfo, own: Rated) -> optax.GradientTransformation:
    """Adam."""
    return _at_rate(settings, own, optax.adam)


def adamw(settings: Settings, info: RunInfo, own: Rated) -> optax.GradientTransformation:
    """AdamW: the decay is no part of the gradient that its moments are of."""
    return _at_rate(settings, own, lambda rate: optax.adamw(rate, weight_decay=own.weight_decay), l2=False)


def sgd(settings: Settings, info: RunInfo, own: SGD) -> optax.GradientTransformation:
    """SGD with momentum."""
    return _at_rate(settings, own, lambda rate: optax.sgd(rate, own.momentum, own.nesterov))
