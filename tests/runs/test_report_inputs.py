"""From records to a report: no curve mixes two sets of images, and nothing that differs among runs is passed over."""

import json

import pytest

from bap_jax.report.rows import check_rows, comparisons_of
from bap_jax.runs.migrations import migrated
from bap_jax.runs.report_inputs import attack_of, checks_of, notes_of, one_record_per_arm, rows_of, settings_table, versions_table


def row(**changes):
    common = {"data": "d", "model": "m", "arm": "blind", "process": "p", "sparsity": 0.9, "seed": 0, "split": "test"}
    return {**common, "attack": "clean", "norm": "", "epsilon": 0.0, "accuracy": 0.9, "num_examples": 100} | changes


def record(*rows, run="r", **changes):
    plan = {"attack": "pgd", "split": "test", "checkpoint": "last"}
    return {"run": str(run), "step": 5, "finished": True, "plan": plan, "rows": list(rows), "versions": {"jax": "1"}} | changes


@pytest.fixture
def runs(tmp_path):
    """Two runs that differ in one setting and in what they were trained with."""
    for name, seed, jax in (("a", 0, "1"), ("b", 1, "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"seed": seed, "model": "mlp"}))
        (tmp_path / name / "versions.json").write_text(json.dumps({"jax": jax, "resumed_with": []}))
    return tmp_path / "a", tmp_path / "b"


def test_an_attack_on_fewer_images_starts_from_the_clean_accuracy_on_those():
    pgd, auto = {"attack": "pgd-20", "norm": "linf"}, {"attack": "autoattack", "norm": "linf"}
    many = record(row(), row(**pgd, epsilon=0.1, accuracy=0.5))
    few = record(row(accuracy=1.0, num_examples=20), row(**auto, epsilon=0.1, accuracy=0.4, num_examples=20))
    for records in ([many, few], [few, many]):
        rows = rows_of(records)
        check_rows(rows)
        starts = {r["attack"]: (r["accuracy"], r["num_examples"]) for r in rows if r["epsilon"] == 0}
        assert starts == {"clean": (0.9, 100), "autoattack": (1.0, 20)}
        assert len(rows) == 4 and len(comparisons_of(rows)) == 2


def test_one_network_per_arm_is_the_sparsest_and_checkpoints_are_arms():
    records = [record(row(sparsity=s), run=name) for s, name in ((0.5, "a"), (0.9, "b"), (0.9, "c"))]
    records.append(record(row(arm="blind, checkpoint best"), run="b"))
    chosen = one_record_per_arm(records)
    assert {arm: one["run"] for arm, one in chosen.items()} == {"blind": "b", "blind, checkpoint best": "b"}


@pytest.mark.parametrize("name", ["fmn-50-l2", "autoattack-l2", "worst of a, b"])
def test_an_attack_is_known_by_the_name_that_rows_have(name):
    told = name.removesuffix("-l2")
    others = [row(attack="other", norm="linf", epsilon=0.1), row(attack=told, norm="l2", epsilon=0.1)]
    assert attack_of(record(row(), *others), name) == (told, "l2")
    assert attack_of(record(row()), "gone") == ("gone", "")


def test_settings_and_versions_tell_what_differs(runs):
    a, b = runs
    plans = [{"attack": "pgd", "epsilon": "0.1", "split": "test"}, {"attack": "fmn", "epsilon": "0.1", "split": "test"}]
    records = [record(row(), run=run, plan=plan) for run in (a, b) for plan in plans]
    table = settings_table(records)
    of_then = migrated({"model": "mlp"})  # what these configurations are too old to say
    lacking = {name: str(value) for name, value in of_then.items()}
    assert table["training"] == {"runs": 2, "seed": "0, 1", "model": "mlp"} | lacking
    assert table["evaluation"] == {"epsilon": "0.1", "split": "test"}
    assert (table["evaluation 1"], table["evaluation 2"]) == ({"attack": "pgd"}, {"attack": "fmn"})
    assert versions_table(records) == {"jax": "1", "training": {"jax": "1, 2"}}
    assert versions_table([record(row(), run=a)]) == {"jax": "1"}


def test_many_values_of_a_setting_are_counted(tmp_path):
    records = []
    for seed in range(40):
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "config.json").write_text(json.dumps({"seed": seed}))
        records.append(record(row(seed=seed), run=tmp_path / str(seed)))
    said = settings_table(records)["training"]["seed"]
    assert said.startswith("0, 1, 2, ") and said.endswith("23, … (40 values)")


def test_a_reader_is_told_what_no_table_says():
    assert notes_of([record(row())]) == []
    validation = record(row(seed=1), run="b", plan={"split": "validation"}, finished=False)
    notes = " ".join(notes_of([record(row()), validation]))
    for part in ("not finished: b.", "1 of 2 evaluations are on validation data", "one run per arm", "blind: r"):
        assert part in notes


def test_a_check_that_failed_names_its_run_where_there_are_several():
    good, bad = ({"name": "logits", "status": status, "value": "x", "advice": ""} for status in ("passed", "failed"))
    checks = checks_of([record(row(), run=name, checks=[check]) for name, check in (("a", good), ("b", bad), ("c", bad))])
    assert [(check["name"], check["status"], check["value"]) for check in checks] == [
        ("logits (2 of 3 evaluations)", "failed", "x (in b)"),
        ("logits (1 of 3 evaluations)", "passed", "x"),
    ]
    assert checks_of([record(row(), checks=[bad])])[0]["value"] == "x"
