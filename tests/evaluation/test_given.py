"""What a caller hands to evaluate: taken as what it plainly means, or refused by its name before anything is compiled."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation import Surrogate, named_threat
from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.types import Batch, Bounds

N, D, K = 12, 5, 3
_random = np.random.RandomState(3)
WEIGHTS = jnp.asarray(_random.randn(D, K), jnp.float32)
IMAGES = (0.3 + 0.4 * _random.rand(N, D)).astype(np.float32)
LABELS = ((IMAGES - 0.5) @ np.asarray(WEIGHTS)).argmax(1).astype(np.int32)
BATCH = Batch(IMAGES, LABELS, np.arange(N, dtype=np.int32), np.ones(N, np.float32))
GOOD = {"batches": [BATCH], "threats": [named_threat("fgsm")], "epsilons": [0.05, 0.1], "key": jax.random.key(0)}


def linear(weights, images):
    return (images - 0.5) @ weights


def look(predict=linear, **changes):
    given = GOOD | changes
    return evaluate(
        predict, WEIGHTS, given.pop("batches"), given.pop("threats"), given.pop("epsilons"), given.pop("key"), **given
    )


@pytest.mark.parametrize("change", [
    {"threats": named_threat("fgsm")},
    {"threats": (threat for threat in [named_threat("fgsm")])},
    {"batches": BATCH},
    {"batches": [jax.tree.map(jnp.asarray, BATCH)]},
    {"batches": [BATCH._replace(labels=LABELS.astype(np.int64), weight=np.ones(N, bool))]},
    {"key": 0},
    {"key": np.int64(0)},
    {"key": jax.random.PRNGKey(0)},
    {"epsilons": np.array([0.1, 0.05])},
    {"epsilons": {"linf": (0.05, 0.1), "l2": 7}},
    {"sources": ()},
])  # fmt: skip
def test_what_is_plainly_meant_is_taken(change):
    plain, found = look(controls=False), look(**change, controls=False)
    np.testing.assert_array_equal(found.success["fgsm-linf"], plain.success["fgsm-linf"])
    assert found.epsilons == plain.epsilons


@pytest.mark.parametrize("epsilon", [0.1, np.float32(0.1), jnp.float32(0.1), {"linf": 0.1}, {"linf": np.array(0.1)}])
def test_one_radius_is_a_radius(epsilon):
    found = look(epsilons=epsilon, sources=Surrogate("other", linear, -WEIGHTS), controls=False)
    assert found.epsilons["fgsm-linf"] == pytest.approx((0.1,)) and "fgsm-linf from other" in found.robust_accuracy


@pytest.mark.parametrize("change, name, told", [
    ({"threats": "pgd"}, "threats", r"'pgd': expected attacks .*named_threat\('pgd'\)"),
    ({"threats": ["pgd"]}, "threats", "'pgd'"),
    ({"threats": [named_threat("fgsm"), None]}, "threats", "'NoneType'"),
    ({"threats": 3}, "threats", "'int'"),
    ({"epsilons": "8/255"}, "epsilons", "'8/255': expected numbers"),
    ({"epsilons": ["0.1"]}, "epsilons", r"\['0.1'\]: expected numbers"),
    ({"epsilons": None}, "epsilons", "None: expected"),
    ({"epsilons": [[0.1, 0.2]]}, "epsilons", "expected numbers"),
    ({"epsilons": {"linf": "0.1"}}, "epsilons", "'0.1'"),
    ({"epsilons": {"linf": []}}, "epsilons", "at least one"),
    ({"epsilons": {"linf": [8]}}, "epsilons", r"8: expected at most 1, the linf size of the box \[0, 1\]; 8/255\?"),
    ({"epsilons": 8, "threats": named_threat("fgsm", norm="l2")}, "epsilons", r"8: expected at most 2.23607, the l2 .*8/255\?"),
    ({"epsilons": [0, 255], "threats": named_threat("fmn", norm="l1")}, "epsilons", r"255: expected at most 5, .*255/255\?"),
    ({"epsilons": 6, "threats": named_threat("sigma-zero", norm="l0")}, "epsilons", "6: expected at most 5, the l0 size"),
    ({"key": "0"}, "key", "'str'"),
    ({"key": 0.5}, "key", "'float'"),
    ({"key": jax.random.split(jax.random.key(0))}, "key", r"of shape \[2\]"),
    ({"batches": (IMAGES, LABELS)}, "batches", "'ndarray': expected batches"),
    ({"batches": 3}, "batches", "'int'"),
    ({"batches": [BATCH._replace(images=(IMAGES * 255).astype(np.uint8))]}, "images", r"uint8\[12, 5\].*expected floats"),
    ({"batches": [BATCH._replace(images=IMAGES * 2 - 1)]}, "images", r"values from -0.* to 0.*inside the bounds \[0, 1\]"),
    ({"batches": [BATCH._replace(images=IMAGES * np.nan)], "threats": []}, "images", "60 values that are not finite"),
    ({"batches": [BATCH, BATCH._replace(images=IMAGES[:, :4])]}, "images", r"\[4\]: expected images of one shape"),
    ({"batches": [BATCH._replace(weight=np.ones(N - 1))]}, "weight", r"float64\[11\]"),
    ({"batches": [BATCH._replace(weight=np.full(N, np.nan))]}, "weight", "nan"),
    ({"batches": [BATCH._replace(index=np.arange(3))]}, "index", r"int64\[3\]"),
    ({"batches": [BATCH._replace(index=np.linspace(0, 1, N))]}, "index", r"float64\[12\]"),
    ({"batches": [BATCH._replace(labels=LABELS[:5])]}, "labels", r"int32\[5\]: expected integers of shape \[12\]"),
    ({"batches": [BATCH._replace(labels=LABELS.astype(np.float32))]}, "labels", r"float32\[12\]"),
    ({"batches": [BATCH._replace(labels=LABELS * 0 + K)]}, "labels", "3 at position 0: expected classes 0 to 2"),
    ({"batches": [BATCH._replace(labels=LABELS * 0 - 1)]}, "labels", "-1 at position 0"),
    ({"sources": ["dense"]}, "sources", "'str'"),
    ({"predict": 3}, "predict", "'int'"),
    ({"predict": lambda w, x: ((x - 0.5) @ w, x)}, "predict", "a tuple: expected .*logits"),
    ({"predict": lambda w, x: ((x - 0.5) @ w)[:, 0]}, "predict", r"float32\[12\]"),
    ({"predict": lambda w, x: ((x - 0.5) @ w)[:, :1]}, "predict", r"float32\[12, 1\]"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(change, name, told):
    with pytest.raises(SettingError, match=told) as error:
        look(**change)
    assert error.value.name == name


def test_nothing_is_computed_before_it_is_refused():
    def predict(weights, images):
        raise AssertionError("traced")

    for change in ({"epsilons": 8}, {"batches": [BATCH._replace(images=IMAGES + 2)]}, {"batches": [BATCH._replace(weight=1)]}):
        with pytest.raises(SettingError):
            look(predict, **change)


def test_the_whole_box_is_a_budget_and_other_boxes_have_other_sizes():
    assert look(epsilons=1.0, controls=False).epsilons["fgsm-linf"] == (1.0,)
    wide = named_threat("fgsm", bounds=Bounds(-1.0, 1.0))
    assert look(threats=wide, epsilons=1.5, controls=False).epsilons["fgsm-linf"] == (1.5,)
    endless = named_threat("fgsm", bounds=Bounds(-np.inf, np.inf))
    assert look(threats=endless, epsilons=8, controls=False).epsilons["fgsm-linf"] == (8.0,)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_images_are_attacked_in_float32(dtype):
    """The network is shown its own precision; no point leaves its ball or its box; next to the numbers of float32."""
    seen = set()

    def network(weights, images):
        seen.add(images.dtype)
        return linear(weights.astype(images.dtype), images)

    half = IMAGES.astype(dtype)
    threats = [named_threat("fgsm"), named_threat("fmn", num_steps=20), named_threat("fgsm-truncated")]
    given = {"batches": BATCH._replace(images=half), "threats": threats, "epsilons": [0.02, 0.05, 0.1], "controls": False}
    found, exact = look(network, **given), look(**given | {"batches": BATCH._replace(images=half.astype(np.float32))})
    assert seen == {np.dtype(dtype)}
    for name, accuracies in exact.robust_accuracy.items():
        np.testing.assert_allclose(found.robust_accuracy[name], accuracies, atol=1.5 / N)
    points = [check for check in found.checks if "points in" in check.name]
    assert len(points) == 5 and {check.status for check in points} == {"passed"}
