"""Evaluation in one line: arrays, names and radii come to the same as batches, threats and keys made by hand."""

import jax
import numpy as np
import pytest

import bap_jax as bap
from bap_jax.errors import SettingError
from bap_jax.evaluation import evaluate, evaluate_batches, named_threat
from bap_jax.types import Batch, Bounds

N, D, K = 20, 6, 5
_random = np.random.RandomState(3)
WEIGHTS = _random.randn(D, K).astype(np.float32)
IMAGES = (0.2 + 0.6 * _random.rand(N, D)).astype(np.float32)
LABELS = ((IMAGES - 0.5) @ WEIGHTS).argmax(1)
QUICK = {"controls": False}


def linear(images):
    return (images - 0.5) @ WEIGHTS


@pytest.fixture(scope="module")
def result():
    return evaluate(
        linear, IMAGES, LABELS, attacks="pgd,fmn", norm=("linf", "l2"), epsilon={"linf": 0.05, "l2": [0.1, 0.2]}, **QUICK
    )


def test_it_finds_what_batches_and_threats_by_hand_find(result):
    batches = [Batch(IMAGES, LABELS.astype(np.int32), np.arange(N, dtype=np.int32), np.ones(N, np.float32))]
    threats = [named_threat(attack, norm=norm) for attack in ("pgd", "fmn") for norm in ("linf", "l2")]
    by_hand = evaluate_batches(
        lambda w, x: (x - 0.5) @ w, WEIGHTS, batches, threats, {"linf": 0.05, "l2": [0.1, 0.2]}, 0, **QUICK
    )
    assert result.epsilons == by_hand.epsilons and list(result.success) == [threat.name for threat in threats]
    for name in result.success:
        np.testing.assert_array_equal(result.success[name], by_hand.success[name])
    smaller = evaluate(linear, IMAGES, LABELS, attacks=threats[0], epsilon=0.05, batch_size=7, seed=jax.random.key(0), **QUICK)
    np.testing.assert_array_equal(smaller.success["pgd-linf"], result.success["pgd-linf"])


def test_rows_table_and_picture_say_the_same(result, tmp_path):
    rows = result.to_rows()
    assert [row["attack"] for row in rows[:2]] == ["clean", "pgd"] and all(r["low"] <= r["accuracy"] <= r["high"] for r in rows)
    worst = [row for row in rows if row["attack"] == "worst of pgd, fmn"]
    assert [(row["norm"], row["epsilon"]) for row in worst] == [("linf", 0.05), ("l2", 0.1), ("l2", 0.2)]
    assert [row["accuracy"] for row in worst] == [*result.worst_case["linf"], *result.worst_case["l2"]]
    lines = str(result).splitlines()
    assert lines[0] == f"{N} examples" and len({len(line) for line in lines[1 : len(rows) + 2]}) == 1
    assert f"{100 * worst[0]['accuracy']:.1f} %" in next(line for line in lines if line.startswith("worst of pgd, fmn linf"))
    assert sum(line.startswith("smallest perturbations found by fmn") for line in lines) == 2
    figure = result.plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Security curves, linf", "Security curves, l2", "Distances, linf", "Distances, l2"]
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[1].get_lines()}
    np.testing.assert_allclose(drawn["worst of them"], 100 * np.r_[result.clean_accuracy, result.worst_case["l2"]])
    figure.savefig(tmp_path / "curve.png")


def test_a_cascade_by_its_name_has_its_stages_drawn():
    found = evaluate(linear, IMAGES, LABELS, attacks="cascade:fgsm+pgd", epsilon=[0, 0.05], num_steps=3, limit=8, **QUICK)
    assert found.num_examples == 8 and list(found.stages) == ["fgsm+pgd-linf"]
    axes = found.plot().axes[-1]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["clean", "fgsm-linf", "pgd-3-linf"]
    assert axes.get_lines()[0].get_ydata()[-1] == 100 * found.robust_accuracy["fgsm+pgd-linf"][1]


def test_bytes_data_sets_bounds_and_progress(capsys):
    dataset = bap.data.from_arrays(
        (IMAGES.reshape(N, 2, 3, 1) * 255).astype(np.uint8), LABELS, test=(IMAGES[:2], LABELS[:2])
    ).train
    flat = lambda images: linear(images.reshape(len(images), -1))  # noqa: E731
    by_data = evaluate(flat, dataset, attacks="fgsm", epsilon=0.05, **QUICK)
    by_arrays = evaluate(flat, dataset.images, dataset.labels, attacks="fgsm", epsilon=0.05, progress=True, **QUICK)
    np.testing.assert_array_equal(by_data.success["fgsm-linf"], by_arrays.success["fgsm-linf"])
    told = capsys.readouterr()
    assert told.out == "" and "100%  fgsm-linf at 0.05" in told.err and max(map(len, told.err.split("\r"))) <= 80
    wide = evaluate(linear, 2 * IMAGES, LABELS, attacks="fgsm", epsilon=1.5, bounds=Bounds(-1, 2), **QUICK)
    assert wide.num_examples == N
    seen = []
    evaluate(linear, IMAGES, LABELS, attacks="fgsm", epsilon=0.05, progress=seen.append, **QUICK)
    assert seen[-1].fraction == 1.0


def test_a_function_whose_weights_have_changed_is_not_taken_for_what_it_was():
    weights = [WEIGHTS]
    changing = lambda images: (images - 0.5) @ weights[0]  # noqa: E731
    before = evaluate(changing, IMAGES, LABELS, attacks="fgsm", epsilon=0, **QUICK)
    weights[0] = -WEIGHTS
    after = evaluate(changing, IMAGES, LABELS, attacks="fgsm", epsilon=0, **QUICK)
    assert before.clean_accuracy == 1.0 and after.clean_accuracy < 0.5


def test_the_old_call_works_and_says_what_it_is_now():
    batch = Batch(IMAGES, LABELS.astype(np.int32), np.arange(N, dtype=np.int32), np.ones(N, np.float32))
    predict = lambda w, x: (x - 0.5) @ w  # noqa: E731
    given = named_threat("fgsm"), 0.05, jax.random.key(0)
    today = evaluate_batches(predict, WEIGHTS, batch, *given, controls=False)
    for call in (
        lambda: bap.evaluate(predict, WEIGHTS, batch, *given, controls=False),
        lambda: bap.evaluate(predict, params=WEIGHTS, batches=batch, threats=given[0], epsilons=0.05, key=0, controls=False),
    ):
        with pytest.warns(FutureWarning, match="evaluate_batches now"):
            found = call()
        np.testing.assert_array_equal(found.success["fgsm-linf"], today.success["fgsm-linf"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epsilon": None}, "epsilon = None: expected a radius such as 8 / 255"),
        ({"epsilon": 8}, "epsilons = 8: expected at most 1"),
        ({"attacks": "pdg"}, "attacks = 'pdg'"),
        ({"attacks": []}, "attacks = "),
        ({"attacks": "cascade:pgd+pdg"}, "attacks = 'cascade:pgd"),
        ({"attacks": 7}, "threats = 'int'"),
        ({"norm": "l7"}, "norm = 'l7'"),
        ({"norm": "l0"}, "norm = 'l0': expected linf or l2"),
        ({"restart": 5}, "restart = 5"),
        ({"attacks": named_threat("pgd"), "num_steps": 5}, "num_steps = 5"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"limit": 0}, "limit = 0"),
        ({"labels": None}, "labels = None"),
        ({"labels": LABELS[:3]}, "labels = "),
        ({"labels": LABELS * 1.0}, "labels = "),
        ({"images": IMAGES + 1}, "images = "),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images = "),
        ({"network": None}, "network = 'NoneType'"),
        ({"network": lambda images: images[:, :1]}, "predict = "),
    ],
)
def test_what_cannot_be_is_named(change, named):
    given = {"network": linear, "images": IMAGES, "labels": LABELS, "attacks": "pgd", "epsilon": 0.1, **QUICK} | change
    with pytest.raises(SettingError, match=named):
        evaluate(given.pop("network"), given.pop("images"), given.pop("labels"), **given)
