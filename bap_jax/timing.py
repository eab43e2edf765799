"""Timing things against each other on a machine that may be busy: in turn, and compared round by round."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """Seconds for one call: on the clock, and of all the processor cores together that this process used."""

    wall: float
    processor: float


class Ratio(NamedTuple):
    """Of the ratios of single rounds: the median and both ends."""

    median: float
    low: float
    high: float


Timed = Callable[[], Sample]


def sample(call: Callable[[], object], calls: int = 1) -> Sample:
    """Times ``calls`` calls, which have to wait for their own results; per call.

    Example:
      >>> sample(lambda: None, 10).wall < 1
      True
    """
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return Sample((time.perf_counter() - wall) / calls, (time.process_time() - processor) / calls)


def calls_for(seconds_per_call: float, *, at_least: float, most: int = 1000) -> int:
    """How many calls make a sample of ``at_least`` seconds.

    Example:
      >>> calls_for(0.004, at_least=0.2), calls_for(3.0, at_least=0.2)
      (50, 1)
    """
    return min(most, max(1, math.ceil(at_least / max(seconds_per_call, 1e-9))))


def in_turn(timed: Mapping[str, Timed], rounds: int, told: Callable[[int], None] | None = None) -> dict[str, list[Sample]]:
    """Takes one sample of each per round; every round begins with another one, so that none always follows the same.

    Example:
      >>> taken = in_turn({"a": lambda: Sample(1.0, 1.0), "b": lambda: Sample(2.0, 1.0)}, 3)
      >>> len(taken["a"]), ratio(taken["b"], taken["a"])
      (3, Ratio(median=2.0, low=2.0, high=2.0))
    """
    names = list(timed)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for done in range(rounds):
        first = done % len(names) if names else 0
        for name in names[first:] + names[:first]:
            samples[name].append(timed[name]())
        if told:
            told(done + 1)
    return samples


def ratio(these: Sequence[Sample], those: Sequence[Sample], clock: str = "wall") -> Ratio:
    """Each round's sample of these over that of those; ``clock`` is ``"wall"`` or ``"processor"``."""
    ratios = [getattr(a, clock) / max(getattr(b, clock), 1e-9) for a, b in zip(these, those, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def median(samples: Sequence[Sample], clock: str = "wall") -> float:
    """The median over rounds, in seconds."""
    return statistics.median(getattr(one, clock) for one in samples)
