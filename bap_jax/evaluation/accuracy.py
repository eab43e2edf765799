"""Accuracies as counts over real examples, and the interval that a count of examples allows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from bap_jax.errors import SettingError


def clean_accuracy(predictions: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The share of examples classified correctly, Σ w·[prediction = label] / Σ w.

    Args:
      predictions: [N] integers.
      labels: [N] integers.
      weight: [N], 0 for padding; all 1 by default.

    Returns:
      A number in [0, 1].

    Raises:
      SettingError: no example has a weight, or the shapes differ.

    Example:
      >>> clean_accuracy([1, 2, 0], [1, 1, 0], [1, 1, 0])
      0.5
    """
    return _share(np.asarray(predictions) == np.asarray(labels), weight)


def robust_accuracy(correct: ArrayLike, successes: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The share of examples that are correct on the clean image *and* under every attack.

    The worst case is taken per example, which is at most, and usually less than, the smallest of the attacks' accuracies.

    Args:
      correct: [N] bool: the clean image is classified correctly.
      successes: [A, N] bool: attack a fooled example n; A may be 0.
      weight: [N], 0 for padding; all 1 by default.

    Returns:
      A number in [0, 1].

    Raises:
      SettingError: no example has a weight, or the shapes do not fit.

    Example:
      >>> robust_accuracy([True, True, True, False], [[True, False, False, False], [False, True, False, False]])
      0.25
    """
    correct, successes = np.asarray(correct, bool), np.asarray(successes, bool)
    if successes.ndim != 2 or successes.shape[1:] != correct.shape:
        raise SettingError("successes", successes.shape, f"shape [attacks, {correct.shape[0]}]")
    return _share(correct & ~successes.any(axis=0), weight)


def wilson_interval(accuracy: float, num_examples: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of an accuracy measured on a finite number of examples (95 % with z = 1.96).

    It covers the choice of examples only, not seeds of training nor the strength of the attack.

    Args:
      accuracy: a share in [0, 1].
      num_examples: how many examples it was measured on.
      z: standard normal quantile.

    Returns:
      (low, high), both in [0, 1].

    Raises:
      SettingError: a share outside [0, 1] or no examples.

    Example:
      >>> [round(side, 3) for side in wilson_interval(0.5, 100)]
      [0.404, 0.596]

    References:
      Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= accuracy <= 1:
        raise SettingError("accuracy", accuracy, "a share in [0, 1]")
    if num_examples < 1:
        raise SettingError("num_examples", num_examples, "at least one example")
    shrink = 1 + z * z / num_examples
    centre = (accuracy + z * z / (2 * num_examples)) / shrink
    half = z / shrink * math.sqrt(accuracy * (1 - accuracy) / num_examples + (z / (2 * num_examples)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def _share(good: np.ndarray, weight: ArrayLike | None) -> float:
    weights = np.ones(good.shape) if weight is None else np.asarray(weight, np.float64)
    if weights.shape != good.shape or weights.sum() <= 0:
        raise SettingError("weight", weights.shape, f"one weight per example, shape {good.shape}, not all zero")
    return float((good * weights).sum() / weights.sum())
