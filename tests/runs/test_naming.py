"""Runs that were trained differently have different names."""

import dataclasses
import json

import pytest

from bap_jax.runs.naming import arm_of, process_of, short_names
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import evaluations_of
from bap_jax.runs.report_inputs import rows_of
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import cell_name

BLIND, UNIFORM = Settings(), Settings(budget="uniform", epsilon="0.3")
CHANGES = [
    {"norm": "rms"}, {"attack": "fgsm"}, {"attack_steps": 3}, {"step_size": 0.5}, {"adversarial_weight": 1.0}, {"loss": "clean"},
    {"label_smoothing": 0.0}, {"optimizer": "sgd"}, {"learning_rate": 0.1}, {"weight_decay": 1e-4}, {"augment": True},
]  # fmt: skip
BLIND_CHANGES = [
    {"search": "deepfool"}, {"search_steps": 2}, {"num_bisections": 4}, {"example": "rescaled"}, {"cutoff": "off"},
    {"scale": 1.0}, {"epsilon_max": 0.5}, {"path": "ray"}, {"halving": "linear"}, {"wrong": "zero"}, {"wrong": "floor:0.5"},
    {"cutoff_over": "right"}, {"path": "ray", "halving": "linear", "wrong": "zero"},
]  # fmt: skip


@pytest.mark.parametrize("base", [BLIND, UNIFORM], ids=["blind", "uniform"])
def test_every_setting_of_the_training_tells_arms_apart(base):
    runs = [dataclasses.replace(base, **change) for change in CHANGES + (BLIND_CHANGES if base is BLIND else [])]
    assert len({arm_of(run) for run in [base, *runs]}) == len(runs) + 1
    assert len({cell_name(run) for run in [base, *runs]}) == len(runs) + 1


def test_the_process_names_the_ramp():
    changes = [{"ramp_end": 0.2}, {"ramp_begin": 0.1}, {"schedule": "one-shot"}, {"scope": "global"}, {"distribution": "erk"}]
    changes += [{"initial_sparsity": 0.5}, {"frequency": 7}]
    for base in (BLIND, dataclasses.replace(BLIND, pruner="mine.pruners:gradual")):
        names = {process_of(dataclasses.replace(base, **change)) for change in changes} | {process_of(base)}
        assert len(names) == len(changes) + 1
    assert process_of(BLIND) == "0-60%" and "every 7" in process_of(dataclasses.replace(BLIND, frequency=7))
    dense = dataclasses.replace(BLIND, pruner="dense")
    assert process_of(dense) == process_of(dataclasses.replace(dense, ramp_end=0.2)) == "dense"


def test_what_is_common_is_left_out_only_where_arms_stay_apart():
    assert short_names(["blind, scale 1.0"]) == {"blind, scale 1.0": "blind, scale 1.0"}
    names = short_names(["clean", "uniform 0.1, norm l2", "blind, norm l2", "blind, norm l2, scale 1.0"])
    assert list(names.values()) == ["clean", "uniform 0.1", "blind", "blind, scale 1.0"]


def row(**changes):
    common = {"data": "d", "model": "m", "arm": "blind", "process": "p", "sparsity": 0.9, "seed": 0, "split": "test"}
    return {**common, "attack": "clean", "norm": "", "epsilon": 0.0, "accuracy": 0.5, "num_examples": 10} | changes


def test_clean_accuracy_is_that_on_most_examples_and_nothing_else_is_dropped():
    attacked = {"attack": "pgd-20", "norm": "linf", "epsilon": 0.1}
    records = [{"rows": [row(), row(**attacked)]}, {"rows": [row(accuracy=0.6, num_examples=20), row(**attacked, accuracy=0.1)]}]
    rows = rows_of(records)
    assert [r["accuracy"] for r in rows if r["attack"] == "clean"] == [0.6]
    assert sorted(r["accuracy"] for r in rows if r["attack"] == "pgd-20") == [0.1, 0.5]  # a report refuses the two, it hides none


def test_an_evaluation_that_training_has_overtaken_is_left_out(tmp_path):
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "config.json").write_text("{}")
    row = {"data": "digits", "model": "mlp", "arm": "blind", "process": "0-60%", "sparsity": 0.9, "seed": 0}
    row |= {"attack": "clean", "norm": "", "epsilon": 0.0, "accuracy": 0.5, "num_examples": 2}
    for name, step, checkpoint in (("old", 5, "last"), ("new", 9, "last"), ("best", 5, "best")):
        plan = dataclasses.asdict(AttackPlan(checkpoint=checkpoint))
        record = {"name": name, "step": step, "plan": plan, "rows": [row], "checks": [], "versions": {}}
        (tmp_path / "evaluations" / f"{name}.json").write_text(json.dumps(record))
    assert sorted(record["name"] for record in evaluations_of(tmp_path)) == ["best", "new"]
