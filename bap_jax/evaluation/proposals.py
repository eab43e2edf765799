"""Where to look next for the smallest value of a function that is dear to evaluate: Bayesian optimisation in the unit cube."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from bap_jax.errors import SettingError

_LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6)  # of the kernel, in sides of the cube
_NOISES = (1e-4, 1e-2, 1e-1)  # variance of an observation, of that of the values
_CANDIDATES = 1024


def propose(points: ArrayLike, values: ArrayLike, dimensions: int, *, num_first: int, seed: int = 0) -> np.ndarray:
    """The next point to evaluate, given what was evaluated before: at first points of a low-discrepancy sequence, then the one of
    largest expected improvement under a Gaussian process.

    The process has a Matérn-5/2 kernel of one length in all directions and noise, both those of largest likelihood in a small
    table. The same arguments give the same point.

    Args:
      points: [n, d] in [0, 1], in the order in which they were proposed; n may be 0.
      values: [n] what was found there; infinite values count as a little worse than the worst finite one.
      dimensions: d.
      num_first: how many points of the sequence come first.
      seed: shifts the sequence.

    Returns:
      [d] in [0, 1].

    Raises:
      SettingError: points and values that do not fit together, points outside of the cube, or values that are NaN.

    Example:
      >>> propose([], [], 2, num_first=4).shape
      (2,)
      >>> tried = [[0.0], [0.25], [0.5], [1.0]]
      >>> bool(0.5 < propose(tried, [(x[0] - 0.7) ** 2 for x in tried], 1, num_first=4)[0] < 1)
      True

    References:
      Jones, Schonlau and Welch 1998, "Efficient Global Optimization of Expensive Black-Box Functions" (expected improvement);
      Roberts 2018, "The Unreasonable Effectiveness of Quasirandom Sequences" (the sequence).
    """
    found, seen = np.asarray(values, np.float64), np.asarray(points, np.float64).reshape(-1, dimensions)
    if found.shape != (len(seen),) or np.isnan(found).any():
        raise SettingError("values", list(found.shape), f"one number for each of {len(seen)} points, no NaN")
    if np.any((seen < 0) | (seen > 1)):
        raise SettingError("points", [float(seen.min()), float(seen.max())], "points in the unit cube")
    if len(seen) < num_first or not np.isfinite(found).any():
        return _sequence(len(seen) + 1, dimensions, seed)[-1]
    finite = found[np.isfinite(found)]
    spread = float(finite.std()) or 1.0
    scores = (np.where(np.isfinite(found), found, finite.max() + spread) - finite.mean()) / spread
    candidates = _candidates(seen[np.argmin(scores)], dimensions, seed + len(seen))
    mean, deviation = _posterior(seen, scores, candidates)
    gain = scores.min() - mean
    z = gain / deviation
    improvement = gain * _normal(z) + deviation * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return candidates[np.argmax(improvement)]


def _sequence(count: int, dimensions: int, seed: int) -> np.ndarray:
    """[count, d]: multiples of the powers of a root of x^(d+1) = x + 1, shifted, modulo 1."""
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    return (np.random.default_rng(seed).random(dimensions) + np.arange(1, count + 1)[:, None] * steps) % 1.0


def _candidates(best: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """[C, d]: all over the cube, and near the best point in steps of several sizes."""
    random = np.random.default_rng(seed)
    steps = random.standard_normal((_CANDIDATES // 2, dimensions)) * random.choice([0.02, 0.05, 0.15], (_CANDIDATES // 2, 1))
    return np.concatenate([_sequence(_CANDIDATES, dimensions, seed), np.clip(best + steps, 0, 1)])


def _kernel(first: np.ndarray, second: np.ndarray, length: float) -> np.ndarray:
    """Matérn 5/2."""
    distance = np.sqrt(5.0) * np.linalg.norm(first[:, None] - second[None], axis=-1) / length
    return (1 + distance + distance**2 / 3) * np.exp(-distance)


def _posterior(seen: np.ndarray, scores: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation at the candidates, of the length and noise of largest likelihood."""
    fits = []
    for length, noise in itertools.product(_LENGTHS, _NOISES):
        lower = np.linalg.cholesky(_kernel(seen, seen, length) + noise * np.eye(len(seen)))
        white = np.linalg.solve(lower, scores)
        fits.append((-0.5 * white @ white - np.log(np.diag(lower)).sum(), length, lower, white))
    _, length, lower, white = max(fits, key=lambda fit: fit[0])
    across = np.linalg.solve(lower, _kernel(seen, candidates, length))
    return white @ across, np.sqrt(np.maximum(1 - np.square(across).sum(axis=0), 1e-12))


def _normal(z: np.ndarray) -> np.ndarray:
    """The distribution function of the standard normal distribution."""
    return 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2)))
