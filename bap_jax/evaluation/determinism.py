"""The same images predicted again and again: whether a network is deterministic, and whether a prediction hangs on its batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def largest_gap(some: np.ndarray, others: np.ndarray) -> float:
    """The largest difference of two arrays of logits; infinite where one is finite and the other is not."""
    both = np.isfinite(some) & np.isfinite(others)
    if (np.isfinite(some) != np.isfinite(others)).any():
        return math.inf
    return float(np.max(np.abs(np.where(both, some, 0) - np.where(both, others, 0)), initial=0.0))


def among_others(
    logits_of: Callable[[np.ndarray], np.ndarray], images: np.ndarray, real: np.ndarray, logits: np.ndarray
) -> tuple[float, int, int]:
    """A batch in another order, and with half of its rows (and its padding) replaced: (the largest difference of a logit of the
    rows that stay, how many of their predictions change, how many they are).
    """
    rows, size = np.flatnonzero(real), len(real)
    order = np.concatenate([np.arange(0, size, 2), np.arange(1, size, 2)])[::-1]  # no pair stays together
    moved = np.empty_like(logits)
    moved[order] = logits_of(images[order])
    stay = rows[::2]
    mirrored = images[real].min() + images[real].max() - images  # as far from the images as the box allows, and inside it
    mirrored[stay] = images[stay]
    beside = logits_of(mirrored)[stay]
    gap = max(largest_gap(moved[rows], logits[rows]), largest_gap(beside, logits[stay]))
    changed = moved.argmax(1) != logits.argmax(1)
    changed[stay] |= beside.argmax(1) != logits[stay].argmax(1)
    return gap, int(changed[rows].sum()), len(rows)
