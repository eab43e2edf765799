"""The accuracies of one comparison as one array, and means over what is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bap_jax.errors import SettingError
from bap_jax.report.measures.intervals import NAN
from bap_jax.report.rows import CLEAN, Comparison, Row, accuracy_of, arms_of, epsilon_of, in_order, sparsity_of


class Grid(NamedTuple):
    """The accuracies of one comparison: ``accuracy [arms, sparsities, epsilons, processes, seeds]``, NaN = missing."""

    comparison: Comparison
    arms: tuple[str, ...]
    sparsities: tuple[float, ...]
    epsilons: tuple[float, ...]
    processes: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: np.ndarray


def make_grid(rows: Sequence[Row], comparison: Comparison) -> Grid:
    """The accuracies of one comparison as one array.

    Args:
      rows: long-form rows; those of other comparisons are ignored. Clean rows are the point ε = 0 unless the attack has its own.
      comparison: data set, model, attack and norm.

    Returns:
      A :class:`Grid`: axes sorted (arms and processes in order of first appearance), NaN where nothing was measured.

    Raises:
      SettingError: no row belongs to the comparison.

    Example:
      >>> row = dict(data="d", model="m", arm="blind", process="fast", sparsity=0.9, seed=0, attack="pgd", norm="linf")
      >>> grid = make_grid([row | dict(epsilon=0.1, accuracy=0.5)], Comparison("d", "m", "pgd", "linf"))
      >>> grid.accuracy.shape, float(grid.accuracy[0, 0, 0, 0, 0])
      ((1, 1, 1, 1, 1), 0.5)
    """
    clean = [row for row in rows if _matches(row, comparison._replace(attack=CLEAN))]
    attacked = [row for row in rows if comparison.attack != CLEAN and _matches(row, comparison)]
    mine = clean + attacked  # an attack's own ε = 0 comes later and so wins
    if not mine:
        raise SettingError("comparison", comparison.label, "one that the rows hold")
    axes = (
        [arm for arm in arms_of(rows) if any(str(row["arm"]) == arm for row in mine)],
        sorted({sparsity_of(row) for row in mine}),
        sorted({epsilon_of(row) for row in mine}),
        in_order(str(row["process"]) for row in mine),
        sorted({int(row["seed"]) for row in mine}),
    )
    places = [{value: i for i, value in enumerate(axis)} for axis in axes]
    accuracy = np.full([len(axis) for axis in axes], NAN)
    for row in mine:
        key = (str(row["arm"]), sparsity_of(row), epsilon_of(row), str(row["process"]), int(row["seed"]))
        value = accuracy_of(row)
        if not math.isnan(value):
            accuracy[tuple(place[part] for place, part in zip(places, key, strict=True))] = value
    arms, sparsities, epsilons, processes, seeds = (tuple(axis) for axis in axes)
    return Grid(comparison, arms, sparsities, epsilons, processes, seeds, accuracy)


def _matches(row: Row, comparison: Comparison) -> bool:
    same = (
        str(row["data"]) == comparison.data and str(row["model"]) == comparison.model and str(row["attack"]) == comparison.attack
    )
    return same and (comparison.attack == CLEAN or str(row["norm"] or "") == comparison.norm)


def mean(values: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """The mean over what is there; NaN where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), NAN)


def mean_over_cells(values: np.ndarray, cells: np.ndarray | None) -> np.ndarray:
    """[..., S, E] -> [...]: the mean over the chosen cells; NaN if one of them is missing or none was chosen."""
    chosen = np.ones(values.shape[-2:], bool) if cells is None else np.asarray(cells, bool)
    picked = values[..., chosen]
    return picked.mean(-1) if picked.shape[-1] else np.full(values.shape[:-2], NAN)


def cell_means(accuracy: np.ndarray) -> np.ndarray:
    """The mean over processes of the mean over seeds: ``[..., processes, seeds] -> [...]``.

    Example:
      >>> cell_means(np.array([[0.2, 0.4], [0.9, np.nan]]))  # processes weigh the same, however many seeds they have
      array(0.6)
    """
    return mean(mean(accuracy))


def common_cells(grid: Grid) -> np.ndarray:
    """``[sparsities, epsilons]`` bool: the cells that every arm has."""
    return ~np.isnan(cell_means(grid.accuracy)).any(0)


def uniform_arms(rows: Sequence[Row]) -> list[str]:
    """The arms that train with a prescribed uniform budget: those whose rows say so in a column ``budget``.

    Example:
      >>> uniform_arms([{"arm": "AP-PGD 0.1", "budget": "uniform"}, {"arm": "blind", "budget": "cutoff-scale"}, {"arm": "mine"}])
      ['AP-PGD 0.1']
    """
    return in_order(str(row["arm"]) for row in rows if row.get("budget") == "uniform")
