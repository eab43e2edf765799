"""How near a minimal-norm attack comes to the best points known, as AttackBench measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from bap_jax.errors import SettingError


def best_distances(distances: Mapping[str, ArrayLike] | Sequence[ArrayLike]) -> np.ndarray:
    """The smallest distance of every image over all attacks: the reference that optimality is measured against.

    Args:
      distances: of each attack [N]: 0 = wrong already, inf = nothing found, the smallest distance met during the run elsewhere.

    Returns:
      [N].

    Raises:
      SettingError: no attack, different lengths, or distances that are negative or NaN.

    Example:
      >>> best_distances([[0.1, np.inf], [0.2, 0.3]]).tolist()
      [0.1, 0.3]
    """
    given = list(distances.values() if isinstance(distances, Mapping) else distances)
    if not given:
        raise SettingError("distances", [], "at least one attack's")
    return np.min([_checked("distances", values, len(np.atleast_1d(given[0]))) for values in given], axis=0)


def local_optimality(distances: ArrayLike, best: ArrayLike) -> float:
    """The share of the area over the best attack's robustness curve that an attack reaches: 1 for the best, 0 for none at all.

    With ρ the clean accuracy, ε₀ the largest finite best distance, and A(d) = mean(min(d, ε₀)), which is the area under the
    curve of accuracy over ε in [0, ε₀]: (ρ·ε₀ − A(d)) / (ρ·ε₀ − A(best)), clipped to [0, 1].

    Args:
      distances: [N] of one attack, as in :func:`best_distances`.
      best: [N] the best known of the same images, in the same norm; ρ is the share of those above 0.

    Returns:
      A number in [0, 1]; NaN where the best attack leaves no area: nothing was found, or all distances are equal to ε₀.

    Raises:
      SettingError: different lengths, no images, or distances that are negative or NaN.

    Example:
      >>> round(local_optimality([0.0, 0.2, 0.4], [0.0, 0.1, 0.4]), 4)
      0.6667

    References:
      Cinà et al. 2025, "AttackBench: Evaluating Gradient-based Attacks for Adversarial Examples", eqs. 4 and 5; as in
      attackbenchlib 2.0.
    """
    best = _checked("best", best)
    own = _checked("distances", distances, len(best))
    finite = best[np.isfinite(best)]
    if not finite.size:
        return float("nan")
    farthest = float(finite.max())
    whole = np.mean(best > 0) * farthest
    area, least = (float(np.mean(np.minimum(values, farthest))) for values in (own, best))
    return float(np.clip((whole - area) / (whole - least), 0, 1)) if whole > least else float("nan")


def global_optimality(local: Sequence[float]) -> float:
    """The mean of an attack's local optimality over networks.

    Args:
      local: of each network, see :func:`local_optimality`.

    Returns:
      A number in [0, 1]; NaN if one of them is, or there are none.

    Example:
      >>> global_optimality([1.0, 0.5])
      0.75
    """
    return float(np.mean(local)) if len(local) else float("nan")


def _checked(name: str, values: ArrayLike, size: int | None = None) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size or size not in (None, array.size):
        raise SettingError(name, list(array.shape), f"one distance per image, [{'N' if size is None else size}]")
    if not np.all(array >= 0):  # NaN among them: not measured
        raise SettingError(name, float(array[~(array >= 0)][0]), "distances ≥ 0, infinite where nothing was found")
    return array
