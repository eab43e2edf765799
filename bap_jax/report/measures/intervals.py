"""Numbers with intervals: the percentile bootstrap over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from bap_jax.errors import SettingError

Over = Literal["seeds", "seeds and processes"]

NAN = math.nan


class Interval(NamedTuple):
    """A number with its 95 % interval; NaN where a number is missing."""

    value: float
    low: float = NAN
    high: float = NAN

    @property
    def known(self) -> bool:
        """Whether the interval is defined."""
        return not (math.isnan(self.low) or math.isnan(self.high))


def bootstrap(
    accuracy: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    over: Over = "seeds",
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A number and its percentile bootstrap interval.

    Seeds are drawn with replacement among those that have a value, the same for every cell and arm in ``accuracy``; with
    ``over="seeds and processes"`` processes are drawn as well. A resample in which the statistic is missing is left out.

    Args:
      accuracy: ``[..., processes, seeds]``, NaN = missing.
      statistic: maps ``[n, ..., processes, seeds]`` to ``[n]``.
      over: what is drawn.
      num_resamples: how many draws.
      confidence: the coverage aimed at.
      seed: of the draws; the same seed gives the same interval.

    Returns:
      :class:`Interval`; low and high are NaN where there is nothing to draw from (one seed; one seed and one process).

    Raises:
      SettingError: ``num_resamples`` < 1 or ``confidence`` outside (0, 1).

    Example:
      >>> from bap_jax.report.measures import aer_score
      >>> score = bootstrap(np.full((1, 1, 1, 3), 0.5), aer_score)
      >>> float(score.value), float(score.low), float(score.high)
      (0.5, 0.5, 0.5)

    References:
      Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if num_resamples < 1:
        raise SettingError("num_resamples", num_resamples, "at least 1")
    if not 0 < confidence < 1:
        raise SettingError("confidence", confidence, "a number in (0, 1)")
    value = float(statistic(accuracy[None])[0])
    there = ~np.isnan(accuracy).reshape(-1, *accuracy.shape[-2:]).all(0)
    processes, seeds = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    drawn = over == "seeds and processes" and len(processes) > 1
    if math.isnan(value) or (len(seeds) < 2 and not drawn):
        return Interval(value)
    random = np.random.default_rng(seed)
    rows = random.choice(processes, (num_resamples, len(processes))) if drawn else np.tile(processes, (num_resamples, 1))
    columns = random.choice(seeds, (num_resamples, len(seeds)))
    chunk = max(1, 4_000_000 // max(1, accuracy.size))  # bounds the memory of a large sweep
    parts = [
        statistic(np.moveaxis(accuracy[..., rows[i : i + chunk, :, None], columns[i : i + chunk, None, :]], -3, 0))
        for i in range(0, num_resamples, chunk)
    ]
    values = np.concatenate(parts)
    values = values[~np.isnan(values)]
    if not values.size:
        return Interval(value)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def paired(accuracy: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], num_resamples: int, seed: int) -> Interval:
    """The statistic of all seeds, with the bootstrap over those seeds that every arm, the first axis, has."""
    value = float(statistic(accuracy[None])[0])
    shared = ~np.isnan(accuracy).all(tuple(range(1, accuracy.ndim - 1))).any(0)
    if shared.sum() < 2:
        return Interval(value)
    drawn = bootstrap(accuracy[..., shared], statistic, num_resamples=num_resamples, seed=seed)
    return Interval(value, drawn.low, drawn.high)
