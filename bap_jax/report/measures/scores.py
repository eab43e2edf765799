"""The measures of one arm: AER score, accuracies, area and stability, over the cells that all arms have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bap_jax.report.measures.grid import Grid, cell_means, common_cells, mean, mean_over_cells
from bap_jax.report.measures.intervals import NAN, Interval, Over, bootstrap


class ArmMeasures(NamedTuple):
    """What is said about one arm of a comparison."""

    aer_score: Interval
    clean: Interval
    robust: Interval
    security_area: Interval
    stability: Interval


def aer_score(accuracy: np.ndarray, cells: np.ndarray | None = None) -> np.ndarray:
    """The AER score (this project's definition): the mean accuracy over the grid of sparsities and budgets.

    Args:
      accuracy: ``[..., sparsities, epsilons, processes, seeds]``, NaN = missing.
      cells: ``[sparsities, epsilons]`` bool, the cells to average over; all if None.

    Returns:
      ``[...]``; NaN where one of the chosen cells is missing.

    Example:
      >>> float(aer_score(np.array([[[[0.75]], [[0.25]]]])))
      0.5
    """
    return mean_over_cells(cell_means(accuracy), cells)


def deviations(accuracy: np.ndarray) -> np.ndarray:
    """The standard deviation over processes of the mean over seeds: ``[..., processes, seeds] -> [...]``.

    NaN below two processes.
    """
    means = mean(accuracy)
    there = ~np.isnan(means)
    count = there.sum(-1)
    squares = np.where(there, (means - mean(means)[..., None]) ** 2, 0.0).sum(-1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), NAN)


def stability(accuracy: np.ndarray, cells: np.ndarray | None = None) -> np.ndarray:
    """The standard deviation over pruning processes at each (sparsity, ε), averaged; lower is steadier.

    Args and Returns are those of :func:`aer_score`.

    Example:
      >>> float(stability(np.array([[[[0.5], [0.7]]]])).round(4))  # two processes, one seed
      0.1414
    """
    return mean_over_cells(deviations(accuracy), cells)


def security_area(accuracy: np.ndarray, epsilons: Sequence[float], cells: np.ndarray | None = None) -> np.ndarray:
    """The area under the security curve divided by the range of ε, averaged over sparsities.

    Args:
      accuracy: ``[..., sparsities, epsilons, processes, seeds]``.
      epsilons: the budgets, ascending and finite.
      cells: as for :func:`aer_score`; a sparsity is left out unless its whole curve is chosen.

    Returns:
      ``[...]``; NaN with fewer than two budgets, or where a chosen curve has a gap.

    Example:
      >>> float(security_area(np.array([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1), (0.0, 0.1, 0.4)).round(4))
      0.375
    """
    means, steps = cell_means(accuracy), np.diff(np.asarray(epsilons, float))
    if len(steps) == 0 or not np.isfinite(steps).all():
        return np.full(means.shape[:-2], NAN)
    curves = np.ones(means.shape[-2], bool) if cells is None else np.asarray(cells, bool).all(-1)
    areas = ((means[..., 1:] + means[..., :-1]) / 2 * steps).sum(-1) / steps.sum()
    return areas[..., curves].mean(-1) if curves.any() else np.full(means.shape[:-2], NAN)


def cell_interval(
    accuracy: np.ndarray, *, over: Over = "seeds", num_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The mean of one cell ``[processes, seeds]`` with its interval; see :func:`bootstrap`."""
    return bootstrap(accuracy, cell_means, over=over, num_resamples=num_resamples, confidence=confidence, seed=seed)


def statistics_of(grid: Grid) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Measure → its function of ``[..., sparsities, epsilons, processes, seeds]``, over the cells that all arms of a grid have.

    The stability is over the cells where every arm has it that has it anywhere.
    """
    cells = common_cells(grid)
    is_clean = np.array([epsilon == 0 for epsilon in grid.epsilons])
    steady = np.isnan(deviations(grid.accuracy))
    steady_cells = cells & ~steady[~steady.all((1, 2))].any(0)  # an arm with one process must not take the others' value away
    return {
        "aer_score": lambda x: aer_score(x, cells),
        "clean": lambda x: aer_score(x, cells & is_clean),
        "robust": lambda x: aer_score(x, cells & ~is_clean),
        "stability": lambda x: stability(x, steady_cells),
        "security_area": lambda x: security_area(x, grid.epsilons, cells),
    }


def measure(grid: Grid, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, ArmMeasures]:
    """Every measure of every arm, over the cells that all arms have, with intervals over seeds.

    Args:
      grid: one comparison.
      num_resamples: draws of the bootstrap.
      seed: of the draws.

    Returns:
      arm → :class:`ArmMeasures`, in the order of ``grid.arms``.

    Example:
      >>> from bap_jax.report.rows import Comparison
      >>> comparison = Comparison("d", "m", "pgd", "linf")
      >>> grid = Grid(comparison, ("blind",), (0.9,), (0.0, 0.1), ("fast",), (0,), np.array([0.8, 0.4]).reshape(1, 1, 2, 1, 1))
      >>> float(measure(grid)["blind"].aer_score.value.__round__(3))
      0.6
    """
    statistics = statistics_of(grid)
    return {
        arm: ArmMeasures(**{k: bootstrap(values, f, num_resamples=num_resamples, seed=seed) for k, f in statistics.items()})
        for arm, values in zip(grid.arms, grid.accuracy, strict=True)
    }
