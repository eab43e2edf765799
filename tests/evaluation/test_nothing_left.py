"""Nothing to attack: every image is wrong without an attack, or almost every one."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.evaluation import autoattack, named_threat
from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.types import Batch

N = 10
_random = np.random.RandomState(0)
WEIGHTS = jnp.asarray(_random.randn(16, 5), jnp.float32)
IMAGES = (0.3 + 0.4 * _random.rand(N, 4, 4, 1)).astype(np.float32)


def network(weights, images):
    return (images - 0.5).reshape(len(images), -1) @ weights


WRONG = ((np.asarray(network(WEIGHTS, IMAGES)).argmax(1) + 1) % 5).astype(np.int32)
THREATS = [
    named_threat("pgd", num_steps=3),
    named_threat("square", num_queries=20),
    named_threat("fmn", num_steps=10),
    named_threat("sparse-rs", norm="l0", num_queries=20),
    named_threat("fgsm-truncated"),
    autoattack("linf", num_steps=5, num_queries=20),
]


@pytest.mark.parametrize("limit", [1, N])
def test_all_wrong_is_zero_at_every_budget(limit):
    size = 5
    batches = [
        Batch(IMAGES[i : i + size], WRONG[i : i + size], np.arange(i, i + size), (np.arange(i, i + size) < limit) * 1.0)
        for i in range(0, N, size)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate(network, WEIGHTS, batches, THREATS, {"linf": [0.0, 0.1], "l0": [0, 4]}, jax.random.key(0))
    assert result.num_examples == limit and result.clean_accuracy == 0
    assert set(result.robust_accuracy) == {threat.name for threat in THREATS}
    for accuracies in (*result.robust_accuracy.values(), *result.worst_case.values()):
        assert accuracies.tolist() == [0.0, 0.0]
    assert all(accuracies.tolist() == [0.0, 0.0] for accuracies in result.stages["autoattack-linf"].values())
    assert result.distance["fmn-10-linf"].tolist() == [0.0] * limit
    assert not [check for check in result.checks if "nan" in check.value]
    assert {check.name: check.value for check in result.checks}["pgd-3-linf: finite points"] == "0 of 0 not finite"
