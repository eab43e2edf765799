"""Security curves: accuracy as a function of the attack's budget."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bap_jax.errors import SettingError


class SecurityCurve(NamedTuple):
    """Accuracy over ε."""

    epsilons: np.ndarray  # [E] rising, in the norm's units
    accuracy: np.ndarray  # [E] in [0, 1]


def security_curve(distances: ArrayLike, epsilons: ArrayLike) -> SecurityCurve:
    """The curve that minimal adversarial distances imply: accuracy(ε) = mean(r > ε).

    Args:
      distances: [N] the norm of the smallest adversarial perturbation found: 0 for an example that is wrong without one, +inf
        where none was found. An attack finds upper bounds of distances, so the curve is an upper bound as well.
      epsilons: [E] budgets ≥ 0, rising.

    Returns:
      SecurityCurve.

    Raises:
      SettingError: a NaN or a negative distance (an example that was not attacked must be left out, not counted), or budgets
        that do not rise.

    Example:
      >>> security_curve([0.0, 0.1, 0.3, float("inf")], [0.0, 0.2, 0.4]).accuracy
      array([0.75, 0.5 , 0.25])
    """
    r, eps = np.asarray(distances, np.float64), np.asarray(epsilons, np.float64)
    if r.ndim != 1 or r.size == 0 or np.isnan(r).any() or (r < 0).any():
        raise SettingError("distances", distances, "at least one number ≥ 0 or +inf per example, no NaN")
    _check_epsilons(eps)
    return SecurityCurve(eps, (r[None, :] > eps[:, None]).mean(axis=1))


def area_under_curve(curve: SecurityCurve) -> float:
    """The mean height of a security curve: its area by the trapezoidal rule over its range of ε.

    Args:
      curve: at least two budgets.

    Returns:
      A number in [0, 1].

    Raises:
      SettingError: fewer than two budgets, or budgets that do not rise.

    Example:
      >>> area_under_curve(SecurityCurve(np.array([0.0, 0.1, 0.3]), np.array([1.0, 0.5, 0.0])))
      0.4166666666666667
    """
    eps, accuracy = np.asarray(curve.epsilons, np.float64), np.asarray(curve.accuracy, np.float64)
    _check_epsilons(eps)
    if eps.size < 2:
        raise SettingError("epsilons", eps.tolist(), "at least two budgets")
    return float(np.sum(np.diff(eps) * (accuracy[1:] + accuracy[:-1]) / 2) / (eps[-1] - eps[0]))


def _check_epsilons(epsilons: np.ndarray) -> None:
    rising = epsilons.ndim == 1 and epsilons.size > 0 and np.all(np.diff(epsilons) > 0)
    if not rising or not np.all(np.isfinite(epsilons)) or epsilons[0] < 0:
        raise SettingError("epsilons", epsilons.tolist(), "rising finite numbers ≥ 0")
