"""The margins that a blind run's budget sees, beside the distances that minimal-norm attacks find."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.evaluation import Check, check_margins
from bap_jax.runs.factories import search_of
from bap_jax.runs.settings import Settings
from bap_jax.types import Array, Batch, Bounds


def margins_of(settings: Settings, predict: Callable, weights: Any, batch: Batch, bounds: Bounds) -> np.ndarray:
    """The margins of a batch as the budget of a blind run sees them.

    Args:
      settings: of a run with the budget cutoff-scale.
      predict: ``(weights, images) -> logits``.
      weights: what it takes.
      batch: images and labels.
      bounds: the box of the images.

    Returns:
      [B] in the run's norm; 0 where the image itself is misclassified, the radius of the search where nothing was found.
    """
    widest = float(np.max(np.asarray(bounds.upper) - np.asarray(bounds.lower)))
    told = settings.value("budget.epsilon_max")
    radius = np.float32(widest if told is None else told)
    measure = _measure(settings.traced(), predict, bounds)
    return np.asarray(measure(weights, jnp.asarray(batch.images), jnp.asarray(batch.labels), radius))


@functools.lru_cache(maxsize=16)
def _measure(settings: Settings, predict: Callable, bounds: Bounds) -> Callable:
    search = search_of(settings, bounds)

    def measure(weights: Any, images: Array, labels: Array, radius: Array) -> Array:
        keys = jax.random.split(jax.random.key(0), labels.shape[0])
        searched = search(lambda points: predict(weights, points), keys, images, labels, radius)
        return searched.norms(settings.norm, radius)

    return jax.jit(measure)


def distances_in(norm: str, distances: Mapping[str, np.ndarray], norms: Mapping[str, str], size: int) -> tuple[str, np.ndarray]:
    """The smallest distance of each example, of the attacks that measured it in a norm (RMS: in L2, over √D), and their names.

    Args:
      norm: the norm wanted.
      distances: attack -> [N].
      norms: attack -> its norm.
      size: D, the number of features of an image.

    Returns:
      The names, empty if there is none, and [N].

    Example:
      >>> distances_in("rms", {"ddn-l2": np.array([4.0])}, {"ddn-l2": "l2"}, 16)
      ('ddn-l2', array([1.]))
    """
    factors = {norm: 1.0} | ({"l2": 1 / math.sqrt(size)} if norm == "rms" else {})
    found = {name: values * factors[norms[name]] for name, values in distances.items() if norms.get(name) in factors}
    return ", ".join(found), np.min(list(found.values()), axis=0) if found else np.zeros(0)


def ratios_of(margins: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Margin over distance of the examples that are right and that both found.

    Example:
      >>> ratios_of(np.array([0.0, 0.75, 1.0]), np.array([0.0, 0.5, np.inf])).tolist()
      [1.5]
    """
    both = (margins > 0) & (distances > 0) & np.isfinite(distances)
    return margins[both] / distances[both]


def margin_checks(
    settings: Settings,
    measure: Callable[[], np.ndarray],
    distances: Mapping[str, np.ndarray],
    norms: Mapping[str, str],
    size: int,
) -> list[Check]:
    """Whether a blind run's budget saw real margins: on as many examples as ``measure`` returns margins of, the first ones.

    Nothing to say of other budgets, nor where no minimal-norm attack measured distances in the budget's norm.
    """
    if settings.budget != "cutoff-scale":
        return []
    names, nearest = distances_in(settings.norm, distances, norms, size)
    if not names:
        return []
    margins = measure()
    ratios = ratios_of(margins, nearest[: len(margins)])
    return [check_margins(names, ratios)] if ratios.size else []
