"""Measures against numbers worked out by hand, and what becomes of missing cells."""

import math

import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.report import measures as m
from bap_jax.report import page
from bap_jax.report.rows import Comparison, check_rows, comparisons_of

NAN = math.nan
SCENE = Comparison("digits", "mlp", "pgd", "linf")


def row(accuracy, *, arm="blind", process="fast", sparsity=0.9, seed=0, attack="pgd", epsilon=0.1, **more):
    base = {"data": "digits", "model": "mlp", "arm": arm, "process": process, "sparsity": sparsity, "seed": seed}
    norm = "" if attack == "clean" else "linf"
    return base | {"attack": attack, "norm": norm, "epsilon": epsilon, "accuracy": accuracy, "num_examples": 10} | more


def grid_of(accuracy, arms=("a",), epsilons=None, sparsities=None):
    """A grid from a nested list [arms, sparsities, epsilons, processes, seeds]."""
    values = np.array(accuracy, float)
    _, s, e, p, r = values.shape
    sparsities = sparsities or tuple(0.1 * i for i in range(s))
    return m.Grid(
        SCENE, tuple(arms), sparsities, epsilons or tuple(0.1 * i for i in range(e)), tuple("pqrs"[:p]), tuple(range(r)), values
    )


def test_cell_mean_is_the_mean_over_processes_of_the_mean_over_seeds():
    assert m.cell_means(np.array([[0.2, 0.4, NAN], [0.9, NAN, NAN]])) == pytest.approx((0.3 + 0.9) / 2)
    assert np.isnan(m.cell_means(np.full((2, 3), NAN)))


def test_aer_score_by_hand():
    # two sparsities, two budgets, one process, two seeds
    accuracy = np.array([[[[0.9, 0.7]], [[0.5, 0.3]]], [[[0.8, 0.8]], [[0.1, 0.3]]]])
    assert m.aer_score(accuracy) == pytest.approx((0.8 + 0.4 + 0.8 + 0.2) / 4)
    assert m.aer_score(accuracy, np.array([[True, False], [False, True]])) == pytest.approx(0.5)
    assert np.isnan(m.aer_score(accuracy, np.zeros((2, 2), bool)))


def test_a_missing_cell_makes_the_score_missing_and_never_zero():
    accuracy = np.array([[[[0.9]], [[NAN]]]])
    assert np.isnan(m.aer_score(accuracy))
    assert m.aer_score(accuracy, np.array([[True, False]])) == pytest.approx(0.9)


def test_stability_by_hand():
    # at ε0 processes .5 and .7: s = .1414; at ε1 .2, .2: s = 0; seeds are averaged first
    accuracy = np.array([[[[0.4, 0.6], [0.6, 0.8]], [[0.2, 0.2], [0.1, 0.3]]]])
    assert m.stability(accuracy) == pytest.approx(math.sqrt(0.02) / 2)


def test_stability_of_one_process_is_missing():
    assert np.isnan(m.stability(np.full((2, 3, 1, 4), 0.5)))


def test_security_area_by_hand_on_an_uneven_grid():
    curve = np.array([1.0, 0.6, 0.2]).reshape(1, 3, 1, 1)
    assert m.security_area(curve, (0.0, 0.1, 0.4)) == pytest.approx((0.1 * 0.8 + 0.3 * 0.4) / 0.4)
    assert np.isnan(m.security_area(curve[:, :1], (0.0,)))
    gap = np.array([1.0, NAN, 0.2]).reshape(1, 3, 1, 1)
    assert np.isnan(m.security_area(gap, (0.0, 0.1, 0.4)))
    assert np.isnan(m.security_area(curve, (0.0, 0.1, math.inf)))


def test_make_grid_takes_clean_rows_as_epsilon_zero_and_leaves_gaps():
    rows = [row(0.9, attack="clean", epsilon=0.0), row(0.5), row(0.4, arm="other"), row(None, arm="other", epsilon=0.2)]
    grid = m.make_grid(rows, SCENE)
    assert (grid.arms, grid.epsilons) == (("blind", "other"), (0.0, 0.1, 0.2))
    np.testing.assert_array_equal(grid.accuracy[:, 0, :, 0, 0], [[0.9, 0.5, NAN], [NAN, 0.4, NAN]])
    assert m.common_cells(grid).tolist() == [[False, True, False]]


def test_an_attacks_own_epsilon_zero_wins_over_the_clean_row():
    rows = [row(0.8, epsilon=0.0), row(0.9, attack="clean", epsilon=0.0)]
    assert m.make_grid(rows, SCENE).accuracy.item() == 0.8


def test_make_grid_of_an_unknown_scene_is_refused():
    with pytest.raises(SettingError, match="comparison"):
        m.make_grid([row(0.5)], SCENE._replace(data="mnist"))


def test_one_seed_has_no_interval():
    interval = m.bootstrap(np.full((1, 2, 2, 1), 0.5), m.aer_score)
    assert interval.value == 0.5 and not interval.known
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_processes_are_drawn_only_when_asked():
    cell = np.array([[0.2], [0.6]])
    assert not m.cell_interval(cell).known
    drawn = m.cell_interval(cell, over="seeds and processes")
    assert (drawn.value, drawn.low, drawn.high) == (pytest.approx(0.4), 0.2, 0.6)


def test_interval_is_that_of_the_enumerated_resamples():
    # two seeds: the means of the four equally likely resamples are .2, .4, .4, .6
    interval = m.cell_interval(np.array([[0.2, 0.6]]), num_resamples=4000)
    assert (interval.low, interval.high) == (pytest.approx(0.2), pytest.approx(0.6))
    inner = m.cell_interval(np.array([[0.2, 0.6]]), num_resamples=4000, confidence=0.4)
    assert (inner.low, inner.high) == (pytest.approx(0.4), pytest.approx(0.4))


def test_interval_covers_the_mean_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    draws = random.normal(0.5, 0.1, (200, 1, 30))
    intervals = [m.cell_interval(cell, num_resamples=300, seed=i) for i, cell in enumerate(draws)]
    covered = np.mean([interval.low <= 0.5 <= interval.high for interval in intervals])
    assert 0.88 <= covered <= 0.99


def test_the_same_seed_gives_the_same_interval():
    cell = np.random.default_rng(0).uniform(size=(2, 5))
    assert m.cell_interval(cell, seed=3) == m.cell_interval(cell, seed=3)
    assert m.cell_interval(cell, seed=3) != m.cell_interval(cell, seed=4)


def test_chunked_resampling_changes_nothing():
    accuracy = np.random.default_rng(0).uniform(size=(2, 3, 2, 4))
    whole = m.bootstrap(accuracy, m.aer_score, num_resamples=50)
    wide = np.broadcast_to(accuracy, (60_000, 2, 3, 2, 4))  # forces chunks of one resample
    chunked = m.bootstrap(wide, lambda x: m.aer_score(x[:, 0]), num_resamples=50)
    assert chunked == whole


@pytest.mark.parametrize("name, value", [("num_resamples", 0), ("confidence", 1.0), ("confidence", 0.0)])
def test_bootstrap_refuses(name, value):
    with pytest.raises(SettingError, match=name):
        m.bootstrap(np.ones((1, 1, 1, 2)), m.aer_score, **{name: value})


def test_measure_compares_arms_on_the_cells_that_all_have():
    accuracy = [[[[[0.9]], [[0.5]]]], [[[[0.8]], [[NAN]]]]]
    found = m.measure(grid_of(accuracy, ("a", "b")))
    assert found["a"].aer_score.value == pytest.approx(0.9) and found["b"].aer_score.value == pytest.approx(0.8)
    assert math.isnan(found["a"].robust.value) and math.isnan(found["a"].security_area.value)


def test_an_arm_with_one_process_leaves_the_others_stability():
    accuracy = [[[[[0.5], [0.7]]]], [[[[0.5], [NAN]]]]]
    found = m.measure(grid_of(accuracy, ("a", "b")))
    assert found["a"].stability.value == pytest.approx(math.sqrt(0.02)) and math.isnan(found["b"].stability.value)


def test_difference_is_paired_by_seed():
    # b is a minus exactly .1, seed by seed: the paired interval has no width, however much the seeds differ
    a = np.array([0.2, 0.5, 0.9])
    grid = grid_of(np.stack([a, a - 0.1]).reshape(2, 1, 1, 1, 3), ("a", "b"))
    gap = m.aer_difference(grid, "a", "b")
    assert (gap.value, gap.low, gap.high) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1))
    assert not m.aer_difference(grid_of(np.array([0.4, 0.3]).reshape(2, 1, 1, 1, 1), ("a", "b")), "a", "b").known


def test_difference_without_common_seeds_has_no_interval():
    grid = grid_of(np.array([[0.4, 0.6, NAN, NAN], [NAN, NAN, 0.3, 0.3]]).reshape(2, 1, 1, 1, 4), ("a", "b"))
    gap = m.aer_difference(grid, "a", "b")
    assert gap.value == pytest.approx(0.2) and not gap.known


def test_budget_sensitivity_is_the_range_over_the_uniform_arms():
    grid = grid_of(np.array([0.9, 0.5, 0.3, 0.44]).reshape(4, 1, 1, 1, 1), ("blind", "uniform 0.1", "uniform 0.2", "uniform 0.3"))
    assert m.budget_sensitivity(grid, ["uniform 0.1", "uniform 0.2", "uniform 0.3"]).value == pytest.approx(0.2)
    assert math.isnan(m.budget_sensitivity(grid, ["uniform 0.1"]).value)


def test_differences_of_every_measure_are_those_of_the_measures():
    accuracy = np.random.default_rng(0).uniform(size=(3, 2, 3, 2, 4))
    grid = grid_of(accuracy, ("a", "b", "c"), (0.0, 0.1, 0.3))
    measured = m.measure(grid, num_resamples=10)
    for kind in m.ArmMeasures._fields:
        gap = m.difference(grid, "a", "c", kind, num_resamples=50)
        assert gap.value == pytest.approx(getattr(measured["a"], kind).value - getattr(measured["c"], kind).value)
        assert gap.low <= gap.value <= gap.high and gap == m.difference(grid, "a", "c", kind, num_resamples=50)
    steadier = m.stability_differences(grid, "a", ["b", "c"], num_resamples=50)
    assert steadier["c"] == m.difference(grid, "a", "c", "stability", num_resamples=50) and list(steadier) == ["b", "c"]
    with pytest.raises(SettingError, match="kind"):
        m.difference(grid, "a", "b", "speed")
    with pytest.raises(SettingError, match="arm"):
        m.difference(grid, "a", "nobody")


def test_stability_difference_is_paired_by_seed():
    # processes .4 and .6 against .3 and .7 for every seed, whose level differs: s = .1414 and .2828, always
    level = np.array([0.0, 0.1, 0.2])
    a, b = ([[0.5 - half + level, 0.5 + half + level]] for half in (0.1, 0.2))
    gap = m.stability_differences(grid_of([[a], [b]], ("a", "b")), "a", ["b"])["b"]
    assert gap == pytest.approx((-math.sqrt(0.02),) * 3)


def test_the_best_budget_is_chosen_on_validation_data_anew_in_every_resample():
    validation = grid_of([[[[[0.5, 0.1]]]], [[[[0.2, 0.3]]]]], ("low", "high"))
    test = grid_of([[[[[0.7, 0.7]]]], [[[[0.6, 0.6]]]], [[[[0.4, 0.4]]]]], ("high", "blind", "low"))
    # all seeds, and three of four resamples, prefer "low" (ahead by .2); the second seed twice prefers "high" (behind by .1)
    chosen = m.difference_from_best(test, validation, "blind", ["low", "high"], num_resamples=4000)
    assert chosen.arm == "low" and chosen.difference == pytest.approx((0.2, -0.1, 0.2))
    assert m.best_arm(test, ["low", "high"]) == "high"  # with the test data seen, another
    fixed = m.difference_from_best(test, validation, "blind", ["high"])
    assert fixed == ("high", pytest.approx((-0.1, -0.1, -0.1)))
    with pytest.raises(SettingError, match="seeds"):
        m.difference_from_best(test, validation._replace(seeds=(4, 5)), "blind", ["low"])


def test_choosing_on_other_budgets_and_sparsities():
    random = np.random.default_rng(3)
    test = grid_of(random.uniform(size=(3, 2, 3, 2, 4)), ("blind", "x", "y"))
    validation = grid_of(random.uniform(size=(2, 1, 2, 2, 4)), ("y", "x"))
    validation.accuracy[1] += 1  # "x" is better whatever is drawn
    chosen = m.difference_from_best(test, validation, "blind", ["x", "y"], num_resamples=100)
    assert chosen.arm == "x" and chosen.difference == pytest.approx(m.aer_difference(test, "blind", "x", num_resamples=100))


def test_own_spread_and_what_a_wrong_budget_costs_beyond_it():
    scores = np.array([[0.55, 0.45, 0.5], [0.9, 0.9, 0.9], [0.6, 0.6, 0.6]])  # arms by seeds, the same in both cells
    accuracy = np.stack([scores + 0.05, scores - 0.05], axis=1).reshape(3, 1, 2, 1, 3)
    grid = grid_of(accuracy, ("blind", "uniform 0.1", "uniform 0.3"))
    assert m.own_spread(grid, "blind").value == pytest.approx(0.1) and not m.own_spread(grid, "blind").known
    assert m.own_spread(grid, "uniform 0.1").value == pytest.approx(0, abs=1e-12)
    excess = m.excess_sensitivity(grid, ["uniform 0.1", "uniform 0.3"], "blind")
    assert excess == pytest.approx((0.3 - 0.1,) * 3)
    grid.accuracy[0, 0, 0, 0, 0] = NAN  # a seed without every cell says nothing
    assert m.own_spread(grid, "blind").value == pytest.approx(0.05)
    grid.accuracy[0, 0, 0, 0, 1] = NAN
    assert math.isnan(m.own_spread(grid, "blind").value)


def test_spread_over_processes_at_each_budget():
    # [sparsities, epsilons, processes]; one seed
    accuracy = np.array([[[0.9, 0.9], [0.6, 0.8]], [[0.7, 0.7], [0.2, 0.2]]])[None, ..., None]
    grid = grid_of(accuracy)
    each = [interval.value for interval in m.process_spread(grid, "a")]
    assert each == pytest.approx([0, math.sqrt(0.02) / 2])
    pooled = [interval.value for interval in m.process_spread(grid, "a", sparsities=True)]
    assert pooled == pytest.approx([np.std([0.9, 0.9, 0.7, 0.7], ddof=1), np.std([0.6, 0.8, 0.2, 0.2], ddof=1)])
    grid.accuracy[0, 1, 1, 0, 0] = NAN
    assert np.isnan([interval.value for interval in m.process_spread(grid, "a", sparsities=True)]).tolist() == [False, True]
    seeds = grid_of(np.stack([accuracy[..., 0], accuracy[..., 0] + 0.1], axis=-1))
    assert m.process_spread(seeds, "a")[1] == pytest.approx((math.sqrt(0.02) / 2,) * 3)  # a shift of all moves nothing


def test_how_far_two_attacks_agree_on_the_order_of_the_arms():
    first = grid_of(np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1, 1, 1), ("a", "b", "c"))
    second = grid_of(np.array([0.9, 0.5, 0.7, 0.6]).reshape(4, 1, 1, 1, 1), ("d", "a", "c", "b"))
    assert m.rank_agreement(first, first) == 1 and m.rank_agreement(first, first._replace(accuracy=-first.accuracy)) == -1
    assert m.rank_agreement(first, second) == 1  # a < b < c in both
    swapped = second._replace(arms=("d", "b", "c", "a"))  # b < a < c
    assert m.rank_agreement(first, swapped) == pytest.approx(1 / 3)
    assert math.isnan(m.rank_agreement(first, second._replace(arms=("d", "e", "f", "a"))))


def test_cut_points_are_told_from_attacks_and_come_after_them():
    comparisons = comparisons_of(
        [row(0.5, attack=name) for name in ("deepfool-truncated-50", "fgsm-truncated", "pgd", "worst of pgd, x")]
    )
    assert [comparison.is_cut for comparison in comparisons] == [False, False, True, True]
    assert [comparison.attack for comparison in comparisons][:2] == ["pgd", "worst of pgd, x"]
    assert comparisons[2].attack_label == "deepfool-truncated-50 (L∞, cut points)" and comparisons[0].attack_label == "pgd (L∞)"


def test_definitions_have_one_source():
    assert not page.DEFINITIONS.keys() & m.DEFINITIONS.keys()


def test_uniform_arms_are_told_by_their_column():
    rows = [
        {"arm": "x", "budget": "uniform"},
        {"arm": "uniform 1", "budget": "cutoff-scale"},
        {"arm": "uniform 2"},
    ]
    assert m.uniform_arms(rows) == ["x"]


def test_scenes():
    rows = [row(0.9, attack="clean", epsilon=0), row(0.5), row(0.5, attack="fgsm"), row(0.5, attack="clean", data="mnist")]
    rows[3]["data"] = "mnist"
    assert [comparison.label for comparison in comparisons_of(rows)] == [
        "digits, mlp, pgd (L∞)",
        "digits, mlp, fgsm (L∞)",
        "mnist, mlp, no attack",
    ]


@pytest.mark.parametrize(
    "change, name",
    [
        ({"accuracy": 1.5}, "accuracy"),
        ({"accuracy": -0.1}, "accuracy"),
        ({"sparsity": 1.2}, "sparsity"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"epsilon": NAN}, "epsilon"),
        ({"seed": None}, "seed"),
    ],
)
def test_check_rows_refuses_values(change, name):
    with pytest.raises(SettingError, match=name):
        check_rows([row(0.5) | change])


def test_check_rows_refuses_absent_columns_and_contradictions():
    with pytest.raises(SettingError, match="num_examples"):
        check_rows([{k: v for k, v in row(0.5).items() if k != "num_examples"}])
    with pytest.raises(SettingError, match="earlier row"):
        check_rows([row(0.5), row(0.6)])
    check_rows([row(0.5), row(0.5), row(None, seed=1), row(NAN, seed=1)])


def test_regret_by_hand():
    # two arms, two sparsities, two budgets, one process, two seeds
    one = [[[[0.9, 0.9]], [[0.2, 0.4]]], [[[0.7, 0.7]], [[0.1, 0.1]]]]  # means over sparsities .8 and .2
    other = [[[[0.8, 0.8]], [[0.6, 0.6]]], [[[0.6, 0.6]], [[0.2, 0.2]]]]  # .7 and .4
    grid = grid_of([one, other], arms=("a", "b"))
    assert m.regret(grid, "a").value == pytest.approx(0.2) and m.regret(grid, "b").value == pytest.approx(0.1)
    low, high = m.regret(grid, "a")[1:]
    assert low == pytest.approx(0.15) and high == pytest.approx(0.25)  # seed 1 alone, seed 0 alone
    assert m.regret(grid_of([one]), "a").value == 0  # nobody to regret
    gap = np.array([one, other])
    gap[1, 1, 1] = NAN  # the cell counts for neither arm
    assert m.regret(grid_of(gap, arms=("a", "b")), "a").value == pytest.approx(0.3)
    gap[1, :, 1] = NAN
    assert m.regret(grid_of(gap, arms=("a", "b")), "a").value == 0 and np.isnan(m.regrets(np.full((2, 3), NAN))).all()
    with pytest.raises(SettingError, match="arm = 'c'"):
        m.regret(grid, "c")
