"""The rule by which one blind setting is chosen for all data sets."""

import dataclasses
import json
import re

import pytest
from earlier import schema_1

from bap_jax.errors import SettingError
from bap_jax.runs.naming import arm_of
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from experiments import arms, choice
from experiments.choice import Standing


def row(arm, epsilon, accuracy, seed=0, **more):
    attack = "pgd-20" if epsilon else "clean"
    common = {
        "arm": arm,
        "attack": attack,
        "epsilon": epsilon,
        "accuracy": accuracy,
        "seed": seed,
        "sparsity": 0.9,
        "process": "p",
    }
    budgets = {"uniform": "uniform", "blind": "cutoff-scale", "clean": "none"}
    return common | {"data": "d", "split": "validation", "budget": budgets[re.match("[a-z]+", arm)[0]]} | more


def curve(arm, *accuracies, seed=0):
    return [row(arm, epsilon, accuracy, seed) for epsilon, accuracy in zip((0.0, 0.1, 0.2), accuracies, strict=True)]


def test_advantage_and_regret_by_hand():
    rows = curve("uniform 0.1", 0.9, 0.6, 0.3) + curve("uniform 0.3", 0.6, 0.5, 0.4) + curve("blind", 0.9, 0.5, 0.3)
    rows += curve("clean", 1.0, 0.1, 0.0) + curve("blind, path ray", 0.6, 0.6, 0.6)
    rows += [row("blind", 0.1, 0.0) | {"attack": "fmn-100"}]  # looked at besides
    found = choice.standings(rows)
    assert choice.best_uniform(rows) == "uniform 0.1"
    assert found.keys() == {"blind", "blind, path ray"}
    renamed = [row | {"arm": {"uniform 0.1": "blind, so called", "blind": "uniform"}.get(row["arm"], row["arm"])} for row in rows]
    assert choice.standings(renamed)["uniform"] == found["blind"]  # the budget's column tells, not the arm's name
    assert found["blind"] == pytest.approx((100 * (1.7 - 1.8) / 3, 30.0, 1))  # at 0.2 the ray's arm has 60
    assert found["blind, path ray"].advantage == pytest.approx(0.0) and found["blind, path ray"].regret == pytest.approx(40.0)


def test_what_is_not_finished_is_compared_where_both_are():
    rows = curve("uniform 0.1", 0.9, 0.6, 0.3) + curve("uniform 0.1", 0.1, 0.1, 0.1, seed=1) + curve("blind", 0.9, 0.9, 0.9)
    (standing,) = choice.standings(rows).values()
    assert standing == pytest.approx((30.0, 0.0, 1))


def test_the_rule():
    a, b, c = "a", "b", "c"
    by_data = {
        "x": {a: Standing(2.0, 9.0, 1), b: Standing(0.0, 9.0, 1)},
        "y": {a: Standing(-3.0, 9.0, 1), b: Standing(-1.0, 9.0, 1)},
    }
    assert choice.choose(by_data, (a, b)) == b  # its smallest advantage is larger
    by_data["x"][c], by_data["y"][c] = Standing(-1.2, 5.0, 1), Standing(5.0, 5.0, 1)
    assert choice.choose(by_data, (a, b, c)) == c  # not told apart from b, and of less regret
    by_data["x"][c] = Standing(-1.2, 8.9, 1)
    by_data["y"][c] = Standing(5.0, 8.9, 1)
    assert choice.choose(by_data, (a, b, c)) == b and choice.choose(by_data, (a, c, b)) == c  # then the order
    del by_data["y"][b], by_data["y"][c]
    assert choice.choose(by_data, (a, b, c)) == a and choice.choose(by_data, (b, c)) is None


def test_candidates_are_said_in_full_and_tell_apart():
    assert len(set(choice.NAMES)) == len(arms.CANDIDATES)
    assert len({frozenset(arm) for arm in arms.CANDIDATES}) == 1
    assert arm_of(Settings(**arms.CANDIDATES[0])) == "blind"


def test_a_sweep_s_folder_is_read_with_the_names_of_today(tmp_path):
    """A cell that an earlier default called "blind" is not what is called so now."""
    run = tmp_path / "cells" / "blind"
    (run / "evaluations").mkdir(parents=True)
    config = schema_1(Settings())
    (run / "config.json").write_text(json.dumps({name: config[name] for name in config if name not in arms.BAP_AT_FIRST}))
    versions = {"bap_jax": "0", "jax": "0", "python": "3"}
    rows = [row("blind", epsilon, 0.5, norm="", model="m", num_examples=5) for epsilon in (0.0, 0.1)]
    plan = dataclasses.asdict(AttackPlan(split="validation"))
    record = {"rows": rows, "plan": plan, "step": 3, "checks": [], "versions": versions}
    (run / "evaluations" / "x.json").write_text(json.dumps(record))
    (found,) = choice.read([tmp_path]).values()
    assert {row["arm"] for row in found} == {"blind, path ray, halving linear, wrong zero"}
    with pytest.raises(SettingError, match="FOLDER"):
        choice.read([tmp_path / "nothing"])
