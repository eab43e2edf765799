"""A report says whether a blind run's budget saw margins."""

import json

import numpy as np
import pytest

from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.loop import train
from bap_jax.runs.margins import distances_in, margin_checks, ratios_of
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings

BLIND = Settings(attack_steps=2, steps=40, batch_size=64, learning_rate=3e-3, validations=1, validation_steps=1)
NAME = "the budget's margins are distances"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blind") / "run"
    train(BLIND, folder)
    return folder


def check_in(run, **changes):
    config = run / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    found = evaluate_run(run, AttackPlan(attack="fmn", epsilon="0,0.1", steps=60, limit=60), batch_size=30)["checks"]
    return next((check for check in found if check["name"] == NAME), None)


def test_the_path_of_balls_sees_margins_and_few_linear_halvings_of_a_wide_ray_do_not(run):
    seen = check_in(run)
    assert seen["status"] == "passed" and "fmn-60-linf" in seen["value"] and "examples" in seen["value"]
    assert int(seen["value"].rpartition(", ")[2].split()[0]) <= 30  # one batch
    coarse = check_in(run, **{"budget.path": "ray", "budget.halving": "linear", "budget.num_bisections": 1})
    assert coarse["status"] == "warned" and "path ball" in coarse["advice"]


def test_nothing_is_said_of_other_budgets_and_without_distances_in_the_norm():
    distances, norms = {"ddn-l2": np.array([1.0])}, {"ddn-l2": "l2", "pgd-linf": "linf"}

    def never():
        raise AssertionError("measured for nothing")

    assert margin_checks(Settings(budget="uniform", epsilon="0.1", norm="l2"), never, distances, norms, 4) == []
    assert margin_checks(Settings(), never, distances, norms, 4) == []
    (check,) = margin_checks(Settings(norm="rms"), lambda: np.array([0.75]), distances, norms, 4)
    assert "median 1.50 times those of ddn-l2" in check.value  # 0.75 against 1 / √4
    assert margin_checks(Settings(norm="l2"), lambda: np.array([0.0]), distances, norms, 4) == []  # nobody is right


def test_the_nearest_of_several_attacks_counts_and_what_was_not_found_does_not():
    distances = {"a": np.array([1.0, 4.0, np.inf]), "b": np.array([2.0, 3.0, np.inf]), "c": np.array([0.1, 0.1, 0.1])}
    names, nearest = distances_in("linf", distances, {"a": "linf", "b": "linf", "c": "l2"}, 4)
    assert names == "a, b" and nearest.tolist() == [1.0, 3.0, np.inf]
    assert ratios_of(np.array([1.5, 3.0, 1.0]), nearest).tolist() == [1.5, 1.0]
