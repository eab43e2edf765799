"""Attacked images that the network has no finite answer to: never a success, and said with their number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.evaluation import named_threat
from bap_jax.evaluation.cascade import cascade
from bap_jax.types import AttackResult, Batch, Bounds, Threat

N, D, K = 16, 6, 4
_random = np.random.RandomState(0)
WEIGHTS = jnp.asarray(_random.randn(D, K), jnp.float32)
IMAGES = (0.2 + 0.3 * _random.rand(N, D)).astype(np.float32)


def steady(weights, images):
    """Class 1, whatever the image."""
    return 0.1 * (images - 0.5) @ weights + jnp.array([[0.0, 50.0, 0.0, 0.0]])


def brittle(column, value):
    """The same, with ``value`` added to a logit (or to all) where a pixel is brighter than any clean one."""

    def network(weights, images):
        bright = images.max(axis=1, keepdims=True) > 0.55
        here = jnp.ones((1, K), bool) if column is None else (jnp.arange(K) == column)[None]
        return steady(weights, images) + jnp.where(bright & here, value, 0.0)

    return network


def moved(step):
    """An attack that adds ``step`` and says that it succeeded."""

    def attack(logits_fn, keys, images, labels, epsilon):
        return AttackResult(jnp.clip(images + step, 0, 1), jnp.ones(len(images), bool), jnp.zeros((1, len(images))))

    return attack


BATCH = Batch(IMAGES, np.ones(N, np.int32), np.arange(N), np.ones(N, np.float32))


def look(network, threats, epsilons=0.45, batch=BATCH):
    return evaluate(network, WEIGHTS, batch, threats, epsilons, jax.random.key(0), controls=False)


def statuses(result):
    return {check.name: (check.status, check.value) for check in result.checks}


@pytest.mark.parametrize("column, value", [(None, np.nan), (2, np.nan), (3, np.inf), (None, -np.inf), (1, -np.inf)])
def test_no_finite_answer_is_no_success(column, value):
    threat = Threat("push", "linf", Bounds(), False, moved(0.4))
    nearest = Threat("reach", "l2", Bounds(), True, moved(0.4))
    result = look(brittle(column, value), [threat, nearest])
    found = statuses(result)
    assert found["finite outputs"][0] == "passed"
    for name in ("push", "reach"):
        assert result.robust_accuracy[name].tolist() == [1.0] and not result.success[name].any()
        assert found[f"{name}: finite outputs"] == ("failed", "16 of 16 not finite")
        assert found[f"{name}: adversarial points returned"][0] == "passed"  # it is not that one was lost
    assert np.isinf(result.distance["reach"]).all() and np.isinf(result.nearest["l2"]).all()


def test_a_network_that_masks_a_class_out_is_fooled_by_finite_logits_and_that_is_said():
    """A −∞ of another class takes no part in who is right; the check has the number all the same."""

    def masked(weights, images):
        bright = images.max(axis=1, keepdims=True) > 0.55
        switched = jnp.where(bright, steady(weights, images)[:, ::-1], steady(weights, images))
        return jnp.where((jnp.arange(K) == 3)[None], -jnp.inf, switched)

    result = look(masked, Threat("push", "linf", Bounds(), False, moved(0.4)))
    assert result.clean_accuracy == 1 and result.robust_accuracy["push"].tolist() == [0.0]
    found = statuses(result)
    assert found["finite outputs"][0] == found["push: finite outputs"][0] == "failed"


@pytest.mark.parametrize("attack, settings", [
    ("pgd", {"num_steps": 3}), ("square", {"num_queries": 10}), ("fmn", {"num_steps": 5}), ("fgsm", {}),
])  # fmt: skip
def test_whatever_an_attack_makes_of_it_nothing_is_counted_unsaid(attack, settings):
    result = look(brittle(2, np.nan), named_threat(attack, **settings))
    (accuracy,) = (values[0] for values in result.robust_accuracy.values())
    assert accuracy == 1.0


def test_a_stage_of_a_cascade_and_a_cut_attack_say_it_too():
    stages = [Threat(name, "linf", Bounds(), False, moved(step)) for name, step in (("still", 0.0), ("push", 0.4))]
    found = statuses(look(brittle(None, np.nan), [cascade("both", stages), named_threat("fgsm-truncated")]))
    assert found["both: finite outputs"] == ("failed", "16 of 16 not finite")
    assert found["fgsm-truncated-linf: finite outputs"][0] == "failed"


def test_a_cut_point_without_an_answer_is_not_put_right():
    wrong = BATCH._replace(labels=np.full(N, 2, np.int32))
    result = look(brittle(None, np.nan), named_threat("fgsm-truncated"), batch=wrong)
    assert result.repaired["fgsm-truncated-linf"].tolist() == [0.0] and result.clean_accuracy == 0
    assert statuses(result)["fgsm-truncated-linf: finite outputs"][0] == "failed"


def test_finite_answers_pass():
    found = statuses(look(steady, Threat("push", "linf", Bounds(), False, moved(0.4))))
    assert found["push: finite outputs"] == ("passed", "0 of 16 not finite")
