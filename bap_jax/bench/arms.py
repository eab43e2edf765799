"""Things timed in turn, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from bap_jax.bench import step
from bap_jax.bench.result import RatioRow, machine, plain
from bap_jax.runs.settings import Settings
from bap_jax.timing import Sample, Timed, calls_for, in_turn, median, ratio, sample

Told = Callable[[int], None]  # rounds done
Measured = tuple[dict[str, Any], list[RatioRow]]


class Pair(NamedTuple):
    """A row: the time of one arm over that of another, and what it should be at most."""

    what: str
    these: str
    those: str
    goal: float | None = None


def timed(call: Callable[[], Any]) -> Timed:
    """A call, compiled and warm, as something to be timed: so often at a time that the clock can tell."""
    jax.block_until_ready(call())
    wait = lambda: jax.block_until_ready(call())  # noqa: E731
    calls = calls_for(sample(wait).wall, at_least=step.SAMPLE_SECONDS)
    return lambda: sample(wait, calls)


def measured(
    suite: str,
    settings: Settings,
    arms: Mapping[str, Timed],
    pairs: Sequence[Pair],
    *,
    rounds: int,
    progress: Told,
    images: int | None = None,
    **more: Any,
) -> Measured:
    """Times arms in turn.

    Args:
      suite: what is timed, for the record.
      settings: of all arms.
      arms: what is timed, by name.
      pairs: the rows.
      rounds: how often each is timed.
      progress: told of the rounds done.
      images: how many images a call takes in; None where it takes in none.
      **more: for the record.

    Returns:
      The figures as JSON, and the rows.
    """
    samples = in_turn(arms, rounds, progress)
    rows = [row(pair.what, samples[pair.these], samples[pair.those], pair.goal) for pair in pairs]
    record = {
        "suite": suite,
        "machine": machine(),
        "settings": settings.as_dict(),
        "rounds": rounds,
        "ratios": [plain(one) for one in rows],
        "steps": {name: line(samples[name], images) for name in samples},
    }
    return record | more, rows


def row(what: str, these: Sequence[Sample], those: Sequence[Sample], goal: float | None = None) -> RatioRow:
    """The times of one arm over those of another; processor time says something on a CPU alone."""
    on_cpu = jax.default_backend() == "cpu"
    return RatioRow(what, ratio(these, those), ratio(these, those, "processor") if on_cpu else None, goal)


def line(samples: Sequence[Sample], images: int | None, compile_seconds: float | None = None) -> dict[str, float | None]:
    """What one arm took, by the medians of its rounds."""
    seconds = median(samples)
    return {
        "seconds": seconds,
        "processor_seconds": median(samples, "processor"),
        "per_second": 1 / seconds,
        "images_per_second": None if images is None else images / seconds,
        "compile_seconds": compile_seconds,
    }
