"""Catastrophic overfitting is seen in a run's own lines: training's step is answered ever better, PGD ever worse."""

import json

import pytest

from bap_jax.errors import RunWarning
from bap_jax.runs.overfitting import overfitting_checks, series_of, takes_one_step
from bap_jax.runs.records import metrics_until
from bap_jax.runs.settings import Settings

FAST = Settings(budget="uniform", epsilon="0.1", attack="rs-fgsm")


def lines_of(*pairs, phase="train", first=0):
    """Two lines of training and a validation for each pair of accuracies, under the training attack and under PGD."""
    lines = []
    for number, (training, robust) in enumerate(pairs):
        step = first + 10 * (number + 1)
        lines += [
            {"step": step - 5, "phase": phase, "loss": 1.0, "adversarial_accuracy": training - 0.02},
            {"step": step, "phase": phase, "loss": 1.0, "adversarial_accuracy": training + 0.02},
            {"step": step, "phase": phase, "validation_accuracy_0": 0.9, "validation_accuracy_0.1": robust + 0.01,
             "validation_accuracy_0.2": robust - 0.01, "validation_mean": 0.5},
        ]  # fmt: skip
    return lines


def checks(folder, lines, settings=FAST, step=10_000):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return overfitting_checks(settings, metrics_until(folder, step))


HEALTHY, COLLAPSED = [(0.5, 0.4), (0.6, 0.45), (0.65, 0.44)], [(0.5, 0.4), (0.6, 0.45), (0.95, 0.03)]


def test_lines_become_pairs_and_the_clean_radius_takes_no_part():
    series = series_of(lines_of(*HEALTHY))
    assert [[round(value, 6) for value in column] for column in series["train"]] == [[0.5, 0.6, 0.65], [0.4, 0.45, 0.44]]


@pytest.mark.parametrize(
    ("pairs", "status"),
    [
        (HEALTHY, "passed"),
        (COLLAPSED, "failed"),
        ([(0.5, 0.4), (0.6, 0.3)], "warned"),
        ([(0.6, 0.4), (0.5, 0.1)], "passed"),  # both fall: pruning does that
        ([(0.5, 0.02), (0.9, 0.01)], "warned"),  # PGD leaves nothing that could fall
        ([(0.5, 0.4), (0.9, 0.05), (0.5, 0.4)], "failed"),  # it recovered, and was there
    ],
)
def test_what_rises_while_the_other_falls_is_told(tmp_path, pairs, status):
    (check,) = checks(tmp_path, lines_of(*pairs))
    assert check.status == status and check.name == "no catastrophic overfitting"
    assert bool(check.advice) == (status != "passed")


def test_a_failure_names_the_numbers_and_a_checkpoint_from_before_has_none(tmp_path):
    (check,) = checks(tmp_path, lines_of(*COLLAPSED))
    assert "from 60.0 to 95.0 %" in check.value and "from 45.0 to 3.0 %" in check.value
    assert checks(tmp_path, lines_of(*COLLAPSED), step=20)[0].status == "passed"
    assert checks(tmp_path, lines_of(*COLLAPSED), step=10) == []  # one validation is no course


def test_phases_are_not_compared_with_each_other(tmp_path):
    both = lines_of((0.5, 0.4), (0.6, 0.5)) + lines_of((0.9, 0.1), (0.9, 0.2), phase="finetune", first=20)
    assert [(check.name[-10:], check.status) for check in checks(tmp_path, both)] == [
        ("ng (train)", "passed"),
        ("(finetune)", "passed"),
    ]


def test_nothing_is_said_of_several_steps_of_clean_training_and_of_lines_that_cannot_be_read(tmp_path):
    assert not takes_one_step(Settings()) and not takes_one_step(Settings(budget="none", attack="fgsm"))
    for settings in (Settings(), Settings(budget="none")):
        assert checks(tmp_path, lines_of(*COLLAPSED), settings) == []
    assert checks(tmp_path, lines_of(*COLLAPSED), Settings(attack_steps=1))[0].status == "failed"
    (tmp_path / "metrics.jsonl").write_text('{"step": 1\n{"step": 2}\n')
    with pytest.warns(RunWarning, match="nothing is said of how it was trained"):
        assert metrics_until(tmp_path, 5) == []
