"""The measures of a report. What each is in words stands in ``docs/measures.md``, which is drawn from the definitions that
reports print (:data:`bap_jax.report.page.DEFINITIONS`) and from :data:`DEFINITIONS`, of the measures beyond them.

All accuracies are fractions of 1. ``A[arm, s, e, p, r]`` is the accuracy of one trained network: sparsity ``s``, budget ``e``
of one attack (ε = 0 is clean), pruning process ``p`` (the course of the ramp), seed ``r``. What was not measured is NaN, and
stays missing in every number that needs it: nothing is counted as 0. ``m[s, e]``, the cell mean, is the mean over processes of
the mean over seeds, over what is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from bap_jax.errors import SettingError
from bap_jax.report.rows import CLEAN, Row, Scene, accuracy_of, arms_of, epsilon_of, in_order, sparsity_of

Over = Literal["seeds", "seeds and processes"]
NAN = math.nan

DEFINITIONS: dict[str, str] = {  # of what stands here and in no report's table; those are in bap_jax.report.page
    "Difference": "of two arms on the same cells, paired: both see the same resampled seeds. Several differences are several "
    "looks: their intervals are each at 95 %, not all together.",
    "Best uniform budget": "the arm with a uniform budget that has the largest AER score on validation data; what is said about "
    "it is measured on test data, and the choice is made anew in every resample.",
    "Own spread": "the largest minus the smallest AER score of one arm over its seeds, each alone: how much chance moves it. "
    "A blind arm has no budget to choose, so this is what budget sensitivity is compared with.",
    "Spread over processes": "the standard deviation over pruning processes at one ε, averaged over sparsities; with sparsities "
    "as processes too, over all pairs of the two.",
    "Rank agreement": "Kendall's τ of the AER scores of the arms under two attacks: 1 if both order the arms alike, −1 if one "
    "order is the other reversed.",
    "Cut points": "the protocol of the paper that blind adversarial pruning comes from: one perturbation, made without a budget, "
    "is cut to each ε. It tells how far away that perturbation led. It is not robust accuracy, which has to stand beside it.",
    "Repaired": "of cut points: the share of images that are wrong without an attack and right at their cut point. They count as "
    "wrong.",
    "Bytes": "of a safetensors file of all parameters and statistics, made and measured: dense, and packed, each tensor without "
    "its zeros in the smallest of three forms (as it is; a bit per element and the values; gaps and the values).",
    "FLOPs": "of the convolutions and matrix products of one image's forward pass, a multiply-add being two; sparse: without the "
    "products with a zero weight, by each kernel's own share of zeros. No promise about time.",
}


class Interval(NamedTuple):
    """A number with its 95 % interval; NaN where a number is missing."""

    value: float
    low: float = NAN
    high: float = NAN

    @property
    def known(self) -> bool:
        """Whether the interval is defined."""
        return not (math.isnan(self.low) or math.isnan(self.high))


class Grid(NamedTuple):
    """The accuracies of one scene: ``accuracy [arms, sparsities, epsilons, processes, seeds]``, NaN = missing."""

    scene: Scene
    arms: tuple[str, ...]
    sparsities: tuple[float, ...]
    epsilons: tuple[float, ...]
    processes: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: np.ndarray


class ArmMeasures(NamedTuple):
    """What is said about one arm of a scene."""

    aer_score: Interval
    clean: Interval
    robust: Interval
    security_area: Interval
    stability: Interval


def make_grid(rows: Sequence[Row], scene: Scene) -> Grid:
    """The accuracies of one scene as one array.

    Args:
      rows: long-form rows; those of other scenes are ignored. Clean rows are the point ε = 0 unless the attack has its own.
      scene: data set, model, attack and norm.

    Returns:
      A :class:`Grid`: axes sorted (arms and processes in order of first appearance), NaN where nothing was measured.

    Raises:
      SettingError: no row belongs to the scene.

    Example:
      >>> row = dict(data="d", model="m", arm="blind", process="fast", sparsity=0.9, seed=0, attack="pgd", norm="linf")
      >>> grid = make_grid([row | dict(epsilon=0.1, accuracy=0.5)], Scene("d", "m", "pgd", "linf"))
      >>> grid.accuracy.shape, float(grid.accuracy[0, 0, 0, 0, 0])
      ((1, 1, 1, 1, 1), 0.5)
    """
    clean = [row for row in rows if _matches(row, scene._replace(attack=CLEAN))]
    attacked = [row for row in rows if scene.attack != CLEAN and _matches(row, scene)]
    mine = clean + attacked  # an attack's own ε = 0 comes later and so wins
    if not mine:
        raise SettingError("scene", scene.label, "one that the rows hold")
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
    return Grid(scene, arms, sparsities, epsilons, processes, seeds, accuracy)


def _matches(row: Row, scene: Scene) -> bool:
    same = str(row["data"]) == scene.data and str(row["model"]) == scene.model and str(row["attack"]) == scene.attack
    return same and (scene.attack == CLEAN or str(row["norm"] or "") == scene.norm)


def _mean(values: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """The mean over what is there; NaN where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), NAN)


def _mean_over_cells(values: np.ndarray, cells: np.ndarray | None) -> np.ndarray:
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
    return _mean(_mean(accuracy))


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
    return _mean_over_cells(cell_means(accuracy), cells)


def deviations(accuracy: np.ndarray) -> np.ndarray:
    """The standard deviation over processes of the mean over seeds: ``[..., processes, seeds] -> [...]``.

    NaN below two processes.
    """
    means = _mean(accuracy)
    there = ~np.isnan(means)
    count = there.sum(-1)
    squares = np.where(there, (means - _mean(means)[..., None]) ** 2, 0.0).sum(-1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), NAN)


def stability(accuracy: np.ndarray, cells: np.ndarray | None = None) -> np.ndarray:
    """The standard deviation over pruning processes at each (sparsity, ε), averaged; lower is steadier.

    Args and Returns are those of :func:`aer_score`.

    Example:
      >>> float(stability(np.array([[[[0.5], [0.7]]]])).round(4))  # two processes, one seed
      0.1414
    """
    return _mean_over_cells(deviations(accuracy), cells)


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


def common_cells(grid: Grid) -> np.ndarray:
    """``[sparsities, epsilons]`` bool: the cells that every arm has."""
    return ~np.isnan(cell_means(grid.accuracy)).any(0)


def uniform_arms(rows: Sequence[Row]) -> list[str]:
    """The arms that train with a prescribed uniform budget.

    An arm is one if its rows have a column ``budget`` that says ``uniform``; without that column, if its name begins with the
    word "uniform" or "AP".

    Example:
      >>> uniform_arms([{"arm": "uniform 0.2"}, {"arm": "AP-PGD 0.1"}, {"arm": "blind"}])
      ['uniform 0.2', 'AP-PGD 0.1']
    """

    def is_uniform(row: Row) -> bool:
        budget = row.get("budget")
        if budget:
            return str(budget) == "uniform"
        return re.match(r"(uniform|ap)(?![a-z])", str(row["arm"]).lower()) is not None

    return in_order(str(row["arm"]) for row in rows if is_uniform(row))


def bootstrap(
    accuracy: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    over: Over = "seeds",
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A number and its percentile bootstrap interval.

    Seeds are drawn with replacement among those that have a value, the same for every cell and arm in ``accuracy``; with
    ``over="seeds and processes"`` processes are drawn as well. A resample in which the statistic is missing is left out.

    Args:
      accuracy: ``[..., processes, seeds]``, NaN = missing.
      statistic: maps ``[n, ..., processes, seeds]`` to ``[n]``.
      over: what is drawn.
      num_resamples: how many draws.
      confidence: the coverage aimed at.
      seed: of the draws; the same seed gives the same interval.

    Returns:
      :class:`Interval`; low and high are NaN where there is nothing to draw from (one seed; one seed and one process).

    Raises:
      SettingError: ``num_resamples`` < 1 or ``confidence`` outside (0, 1).

    Example:
      >>> score = bootstrap(np.full((1, 1, 1, 3), 0.5), aer_score)
      >>> float(score.value), float(score.low), float(score.high)
      (0.5, 0.5, 0.5)

    References:
      Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if num_resamples < 1:
        raise SettingError("num_resamples", num_resamples, "at least 1")
    if not 0 < confidence < 1:
        raise SettingError("confidence", confidence, "a number in (0, 1)")
    value = float(statistic(accuracy[None])[0])
    there = ~np.isnan(accuracy).reshape(-1, *accuracy.shape[-2:]).all(0)
    processes, seeds = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    drawn = over == "seeds and processes" and len(processes) > 1
    if math.isnan(value) or (len(seeds) < 2 and not drawn):
        return Interval(value)
    random = np.random.default_rng(seed)
    rows = random.choice(processes, (num_resamples, len(processes))) if drawn else np.tile(processes, (num_resamples, 1))
    columns = random.choice(seeds, (num_resamples, len(seeds)))
    chunk = max(1, 4_000_000 // max(1, accuracy.size))  # bounds the memory of a large sweep
    parts = [
        statistic(np.moveaxis(accuracy[..., rows[i : i + chunk, :, None], columns[i : i + chunk, None, :]], -3, 0))
        for i in range(0, num_resamples, chunk)
    ]
    values = np.concatenate(parts)
    values = values[~np.isnan(values)]
    if not values.size:
        return Interval(value)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


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
      grid: one scene.
      num_resamples: draws of the bootstrap.
      seed: of the draws.

    Returns:
      arm → :class:`ArmMeasures`, in the order of ``grid.arms``.

    Example:
      >>> scene = Scene("d", "m", "pgd", "linf")
      >>> grid = Grid(scene, ("blind",), (0.9,), (0.0, 0.1), ("fast",), (0,), np.array([0.8, 0.4]).reshape(1, 1, 2, 1, 1))
      >>> float(measure(grid)["blind"].aer_score.value.__round__(3))
      0.6
    """
    statistics = statistics_of(grid)
    return {
        arm: ArmMeasures(**{k: bootstrap(values, f, num_resamples=num_resamples, seed=seed) for k, f in statistics.items()})
        for arm, values in zip(grid.arms, grid.accuracy, strict=True)
    }


def difference(
    grid: Grid, arm: str, other: str, kind: str = "aer_score", *, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """A measure of ``arm`` minus that of ``other``, paired by seed: both see the same resampled seeds.

    Args:
      grid: one scene.
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
    return _paired(pair, lambda x: statistics[kind](x[:, 0]) - statistics[kind](x[:, 1]), num_resamples, seed)


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


def _paired(accuracy: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], num_resamples: int, seed: int) -> Interval:
    """The statistic of all seeds, with the bootstrap over those seeds that every arm, the first axis, has."""
    value = float(statistic(accuracy[None])[0])
    shared = ~np.isnan(accuracy).all(tuple(range(1, accuracy.ndim - 1))).any(0)
    if shared.sum() < 2:
        return Interval(value)
    drawn = bootstrap(accuracy[..., shared], statistic, num_resamples=num_resamples, seed=seed)
    return Interval(value, drawn.low, drawn.high)


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
      test: one scene on test data.
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

    return Chosen(best, _paired(kept, ahead, num_resamples, seed))


def budget_sensitivity(grid: Grid, arms: Sequence[str], *, num_resamples: int = 1000, seed: int = 0) -> Interval:
    """The range (largest minus smallest) of the AER score among ``arms``, which differ in their uniform budget.

    Args:
      grid: one scene.
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
      grid: one scene.
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
            missing = np.isnan(_mean(x)).any((1, 2))
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
