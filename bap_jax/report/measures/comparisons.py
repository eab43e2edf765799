"""Arms against each other: differences, the best one, spreads, and how far two attacks agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bap_jax.errors import SettingError
from bap_jax.report.measures.grid import Grid, cell_means, common_cells, mean
from bap_jax.report.measures.intervals import NAN, Interval, bootstrap, paired
from bap_jax.report.measures.scores import aer_score, deviations, statistics_of


def difference(
    grid: Grid, arm: str, other: str, kind: str = "aer_score", *, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """A measure of ``arm`` minus that of ``other``, paired by seed: both see the same resampled seeds.

    Args:
      grid: one comparison.
      arm, other: two of its arms.
      kind: a field of :class:`ArmMeasures`; of ``stability`` a difference below 0 means that ``arm`` is the steadier one.
      num_resamples: draws of the bootstrap.
      seed: of the draws.

    Returns:
      :class:`Interval`; its bounds need two seeds that both arms have. Several differences are several looks: their intervals
      are each at 95 %, not all together.

    Raises:
      SettingError: no such arm or measure.
    """
    statistics = statistics_of(grid)
    if kind not in statistics:
        raise SettingError("kind", kind, "one of " + ", ".join(statistics))
    pair = grid.accuracy[[_place(grid, arm), _place(grid, other)]]
    return paired(pair, lambda x: statistics[kind](x[:, 0]) - statistics[kind](x[:, 1]), num_resamples, seed)


def aer_difference(grid: Grid, arm: str, other: str, *, num_resamples: int = 1000, seed: int = 0) -> Interval:
    """AER score of ``arm`` minus that of ``other``; see :func:`difference`."""
    return difference(grid, arm, other, num_resamples=num_resamples, seed=seed)


def stability_differences(
    grid: Grid, arm: str, others: Sequence[str], *, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Other arm → stability of ``arm`` minus that of the other; below 0 where ``arm`` is the steadier one."""
    return {other: difference(grid, arm, other, "stability", num_resamples=num_resamples, seed=seed) for other in others}


def _place(grid: Grid, arm: str) -> int:
    if arm not in grid.arms:
        raise SettingError("arm", arm, "one of " + ", ".join(grid.arms))
    return grid.arms.index(arm)


def best_arm(grid: Grid, arms: Sequence[str]) -> str:
    """Of some arms, the one with the largest AER score; on validation data this is how a budget is chosen.

    Raises:
      SettingError: the grid holds none of the arms, or no cell that all have.
    """
    scores = {arm: float(aer_score(grid.accuracy[_place(grid, arm)], common_cells(grid))) for arm in arms}
    known = {arm: score for arm, score in scores.items() if not math.isnan(score)}
    if not known:
        raise SettingError("arms", list(arms), "arms with cells that all arms have")
    return max(known, key=lambda arm: known[arm])


class Chosen(NamedTuple):
    """The arm that validation data prefers, and what another is ahead of it on test data."""

    arm: str
    difference: Interval


def difference_from_best(
    test: Grid, validation: Grid, arm: str, candidates: Sequence[str], *, num_resamples: int = 1000, seed: int = 0
) -> Chosen:
    """AER score of ``arm`` on test data minus that of the best of ``candidates``, chosen by AER score on validation data.

    The choice is part of what is resampled: in every resample the same seeds are drawn on both, the best candidate is chosen
    on validation data, and the difference is taken on test data.

    Args:
      test: one comparison on test data.
      validation: the same networks on validation data; budgets and sparsities may be others.
      arm: say the blind one.
      candidates: at least one; say :func:`uniform_arms`.
      num_resamples: draws of the bootstrap.
      seed: of the draws.

    Returns:
      :class:`Chosen`: the choice from all seeds.

    Raises:
      SettingError: an arm that a grid does not hold; other seeds or processes on the two; no common cells.
    """
    for name, ours, theirs in (("seeds", test.seeds, validation.seeds), ("processes", test.processes, validation.processes)):
        if ours != theirs:
            raise SettingError(f"{name} of the validation data", theirs, f"those of the test data, {ours}")
    best = best_arm(validation, candidates)
    arms = [arm, *candidates]
    parts = [grid.accuracy[[_place(grid, name) for name in names]] for grid, names in ((test, arms), (validation, candidates))]
    parts[1] = np.concatenate([np.full_like(parts[1][:1], NAN), parts[1]])  # the arm itself takes no part in the choice
    flat = [part.reshape(len(arms), -1, *part.shape[3:]) for part in parts]  # [arms, cells, processes, seeds]
    chosen = [common_cells(grid).reshape(-1) for grid in (test, validation)]
    kept = np.concatenate([part[:, cells] for part, cells in zip(flat, chosen, strict=True)], axis=1)
    split = int(chosen[0].sum())

    def ahead(x: np.ndarray) -> np.ndarray:
        means = cell_means(x)  # [n, arms, cells]
        scores, preferred = means[..., :split].mean(-1), means[:, 1:, split:].mean(-1)
        pick = np.argmax(np.where(np.isnan(preferred), -np.inf, preferred), axis=1) + 1
        return scores[:, 0] - scores[np.arange(len(scores)), pick]

    return Chosen(best, paired(kept, ahead, num_resamples, seed))


def regrets(curves: np.ndarray) -> np.ndarray:
    """How far each arm falls below the best one, where that is most: what it costs not to know the budget of the attack.

    Args:
      curves: ``[..., arms, epsilons]``, mean accuracies; a budget at which one is NaN is left out for all.

    Returns:
      ``[..., arms]``, at least 0; NaN where no budget is left.

    Example:
      >>> regrets(np.array([[0.875, 0.5], [0.75, 0.75]])).tolist()
      [0.25, 0.125]
    """
    gaps = curves.max(-2, keepdims=True) - curves  # NaN in one arm is NaN in all
    found = np.where(np.isnan(gaps), -np.inf, gaps).max(-1)
    return np.where(np.isinf(found), NAN, found)


def regret(grid: Grid, arm: str, *, num_resamples: int = 1000, seed: int = 0) -> Interval:
    """The regret of an arm among all arms of a grid, over the cells that all of them have: at each budget the mean over their
    sparsities, then :func:`regrets`.

    Args:
      grid: one comparison.
      arm: one of its arms.
      num_resamples: draws of the bootstrap; all arms see the same seeds.
      seed: of the draws.

    Returns:
      :class:`Interval`; of a maximum, which chance makes larger: the fewer seeds, the more so.

    Raises:
      SettingError: no such arm.
    """
    place, cells = _place(grid, arm), common_cells(grid)

    def of_arm(x: np.ndarray) -> np.ndarray:  # [n, arms, sparsities, epsilons, processes, seeds] -> [n]
        means = np.where(cells, cell_means(x), 0.0)
        return regrets(np.where(cells.any(0), means.sum(-2) / np.maximum(cells.sum(0), 1), NAN))[..., place]

    return paired(grid.accuracy, of_arm, num_resamples, seed)


def budget_sensitivity(grid: Grid, arms: Sequence[str], *, num_resamples: int = 1000, seed: int = 0) -> Interval:
    """The range (largest minus smallest) of the AER score among ``arms``, which differ in their uniform budget.

    Args:
      grid: one comparison.
      arms: names of at least two arms; those that the grid does not hold are ignored. See :func:`uniform_arms`.
      num_resamples: draws of the bootstrap.
      seed: of the draws.

    Returns:
      :class:`Interval`, all NaN with fewer than two arms.
    """
    chosen = [i for i, arm in enumerate(grid.arms) if arm in arms]
    if len(chosen) < 2:
        return Interval(NAN)
    cells = common_cells(grid)
    return bootstrap(
        grid.accuracy[chosen], lambda x: np.ptp(aer_score(x, cells), axis=-1), num_resamples=num_resamples, seed=seed
    )


def own_spread(grid: Grid, arm: str) -> Interval:
    """The range of an arm's AER score over its seeds, each seed alone, over the seeds that have every common cell.

    It has no interval: the range of a resample can only be smaller.

    Returns:
      :class:`Interval` without bounds; NaN with fewer than two such seeds.
    """
    cells, accuracy = common_cells(grid), grid.accuracy[_place(grid, arm)]
    scores = aer_score(np.moveaxis(accuracy, -1, 0)[..., None], cells)  # [seeds]
    there = scores[~np.isnan(scores)]
    return Interval(float(np.ptp(there)) if len(there) > 1 else NAN)


def excess_sensitivity(grid: Grid, arms: Sequence[str], arm: str, *, num_resamples: int = 1000, seed: int = 0) -> Interval:
    """The budget sensitivity among ``arms`` minus the own spread of ``arm``: what a wrong budget costs beyond chance.

    The own spread, of single seeds, is larger than that of means over seeds would be, and it is held at its value (in a resample
    it could only shrink), so a difference above 0 is no work of the comparison's.

    Returns:
      :class:`Interval`; NaN where either is not defined.
    """
    sensitivity = budget_sensitivity(grid, arms, num_resamples=num_resamples, seed=seed)
    return Interval(*(number - own_spread(grid, arm).value for number in sensitivity))


def process_spread(
    grid: Grid, arm: str, *, sparsities: bool = False, num_resamples: int = 1000, seed: int = 0
) -> tuple[Interval, ...]:
    """How much an arm's accuracy varies with the pruning process at each ε: the standard deviation over processes.

    Args:
      grid: one comparison.
      arm: one of its arms.
      sparsities: count final sparsities as processes too: the deviation over all pairs of sparsity and process. Otherwise it is
        taken at each sparsity and averaged.
      num_resamples: draws of the bootstrap.
      seed: of the draws.

    Returns:
      One :class:`Interval` per ε; NaN where an accuracy is missing or there is one process.
    """
    accuracy = grid.accuracy[_place(grid, arm)]  # [sparsities, epsilons, processes, seeds]

    def spread(x: np.ndarray) -> np.ndarray:  # [n, sparsities, processes, seeds] -> [n]
        if sparsities:
            missing = np.isnan(mean(x)).any((1, 2))
            return np.where(missing, NAN, deviations(x.reshape(len(x), -1, x.shape[-1])))
        return deviations(x).mean(-1)

    return tuple(
        bootstrap(accuracy[:, place], spread, num_resamples=num_resamples, seed=seed) for place in range(len(grid.epsilons))
    )


def rank_agreement(first: Grid, second: Grid) -> float:
    """Kendall's τ of the AER scores of the arms that two grids share: 1 if both attacks order the arms alike, −1 if reversed.

    Returns:
      A number in [−1, 1], pairs that tie in either counting as neither; NaN with fewer than two shared arms that have a score.

    References:
      Kendall 1938, "A new measure of rank correlation".
    """
    shared = [arm for arm in first.arms if arm in second.arms]
    scores = np.array(
        [[float(aer_score(g.accuracy[g.arms.index(arm)], common_cells(g))) for arm in shared] for g in (first, second)]
    ).reshape(2, -1)
    scores = scores[:, ~np.isnan(scores).any(0)]
    count = scores.shape[1]
    if count < 2:
        return NAN
    above = np.sign(scores[:, :, None] - scores[:, None, :])
    return float((above[0] * above[1]).sum() / (count * (count - 1)))
