"""Known mistakes of published evaluations, made again on purpose, each caught by a check that says what is wrong.

The defects of the code released with "Pruning in the Face of Adversaries" (arXiv 2108.08560): softmax outputs passed as logits, a
Carlini-Wagner attack with step size 1, examples that were not attacked counted as distance 0, a nominal compression that is not
the real one; and networks that hide their gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import carlini_wagner
from bap_jax.evaluation import (
    Surrogate,
    check_distances,
    check_sparsity,
    named_threat,
    security_curve,
)
from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.types import AttackResult, Batch, Bounds, Threat

N, D, K = 40, 12, 3
_random = np.random.RandomState(5)
WEIGHTS = (jnp.asarray(_random.randn(D, 24), jnp.float32), jnp.asarray(_random.randn(24, K), jnp.float32))
IMAGES = (0.2 + 0.6 * _random.rand(N, D)).astype(np.float32)
KEY = jax.random.key(0)


def network(weights, images):
    return jnp.tanh((images - 0.5) @ weights[0]) @ weights[1]


LABELS = np.asarray(network(WEIGHTS, IMAGES)).argmax(1).astype(np.int32)


def look(model, threats, epsilons=(0.02, 0.04), **settings):
    batch = Batch(IMAGES, LABELS, np.arange(N, dtype=np.int32), np.ones(N, np.float32))
    return evaluate(model, WEIGHTS, [batch], threats, epsilons, KEY, **settings)


def statuses(result):
    return {check.name: check.status for check in result.checks}


def softmaxed(weights, images):
    """Probabilities of an over-confident network, handed over as if they were logits."""
    return jax.nn.softmax(100 * network(weights, images))


def quantised(weights, images):
    """The gradient is zero wherever there is one."""
    return jnp.round(network(weights, images) * 20) / 20


@jax.custom_vjp
def _misleading(logits):
    return logits


_misleading.defvjp(lambda logits: (logits, None), lambda _, cotangent: (-cotangent,))


def reversed_gradients(weights, images):
    """The gradient is there, finite, not zero, and leads the wrong way."""
    return _misleading(network(weights, images))


HONEST = [named_threat("pgd", num_steps=20), named_threat("fmn", num_steps=100), named_threat("square", num_queries=200)]


def test_an_honest_evaluation_passes():
    found = statuses(look(network, [*HONEST, named_threat("fgsm")]))
    assert set(found.values()) == {"passed"}, found
    assert not any(name.startswith("fgsm") and "withstands" in name for name in found)  # one long step proves nothing
    for kind in ("square-200-linf finds nothing", "more steps change nothing", "nothing withstands", "noise finds nothing"):
        assert any(kind in name for name in found)


def test_probabilities_for_logits():
    found = statuses(look(softmaxed, HONEST))
    assert found["outputs are logits"] == "failed"
    assert found["input gradients"] != "passed"  # saturated: a second softmax leaves next to nothing to follow
    assert (
        found["fmn-100-linf: a point for every example"] != "passed"
        or found["square-200-linf finds nothing that gradients miss"] != "passed"
    )


@pytest.mark.parametrize("model", [quantised, reversed_gradients])
def test_masked_gradients(model):
    found = statuses(look(model, HONEST))
    assert found["pgd-20-linf: nothing withstands ε = 1"] == "failed"
    assert found["square-200-linf finds nothing that gradients miss"] == "failed"
    if model is quantised:
        assert found["input gradients"] == "failed"


def test_transfer_from_the_dense_network_shows_masked_gradients_too():
    result = look(reversed_gradients, [named_threat("pgd", num_steps=20)], sources=[Surrogate("dense", network, WEIGHTS)])
    name = "pgd-20-linf from dense"
    assert result.robust_accuracy[name][-1] < result.robust_accuracy["pgd-20-linf"][-1]
    assert result.worst_case["linf"][-1] == result.robust_accuracy[name][-1]
    assert statuses(result)[f"{name} finds nothing that gradients miss"] == "failed"
    same = look(network, [named_threat("pgd", num_steps=20)], sources=[Surrogate("dense", network, WEIGHTS)])
    assert statuses(same)[f"{name} finds nothing that gradients miss"] == "passed"


def carlini_wagner_with(step_size):
    def attack(logits_fn, keys, images, labels, epsilon):
        return carlini_wagner(logits_fn, keys, images, labels, step_size=step_size, num_steps=60, search_steps=6)

    return Threat("cw", "l2", Bounds(), True, attack)


def test_carlini_wagner_with_step_size_one():
    """Its points are farther off than those of PGD at fixed radii, and bisection brings them nearer."""
    radii, pgd = (0.1, 0.2, 0.3), named_threat("pgd", norm="l2", num_steps=20)
    bad, good = (look(network, [carlini_wagner_with(step), pgd], radii) for step in (1.0, 0.03))
    wrong, right = statuses(bad), statuses(good)
    for name in ("cw and pgd-20-l2 agree", "cw: no other point is nearer", "cw: points lie at the boundary"):
        assert right[name] == "passed" and wrong[name] != "passed", name
    assert np.median(bad.distance["cw"]) > 1.2 * np.median(good.distance["cw"])


def test_an_example_that_was_not_attacked_is_missing_and_not_at_distance_zero():
    correct = np.array([True, True, True, False])
    assert check_distances("plotted", correct, [0.3, 0.0, 0.0, 0.0]).status == "failed"  # two were never attacked
    told = check_distances("said", correct, [0.3, np.nan, np.inf, 0.0])
    assert told.status == "warned" and "1 not attacked, 1 not found" in told.value
    assert check_distances("done", correct, [0.3, 0.2, np.inf, 0.0]).status == "passed"
    with pytest.raises(ValueError, match="NaN"):
        security_curve([0.3, np.nan], [0.1])


def test_evaluation_keeps_wrong_not_found_and_found_apart():
    def never(logits_fn, keys, images, labels, epsilon):
        return AttackResult(images, jnp.zeros(len(images), bool), jnp.zeros((1, len(images))))

    def fourth(logits_fn, keys, images, labels, epsilon):
        result = named_threat("fmn", norm="l2").attack(logits_fn, keys, images, labels, epsilon)
        only = jnp.arange(len(images)) % 4 == 0
        return AttackResult(jnp.where(only[:, None], result.images, images), result.found & only, result.loss)

    threats = [Threat("never", "l2", Bounds(), True, never), Threat("fourth", "l2", Bounds(), True, fourth)]
    result = look(network, threats, (0.1, 3.4))
    assert np.isinf(result.distance["never"]).all() and not result.success["never"].any()
    assert np.isinf(result.distance["fourth"]).mean() == 0.75 and (result.distance["fourth"][::4] > 0).all()
    found = statuses(result)
    assert found["never: a point for every example"] == found["fourth: a point for every example"] == "failed"
    assert found["never: distances mean what they should"] == "passed"
    assert result.robust_accuracy["fourth"][1] == 0.75


def test_a_compression_that_is_not_the_real_one():
    assert check_sparsity(asked=1 - 1 / 16, measured=0.91).status == "failed"
    assert check_sparsity(asked=0.9, measured=0.9001).status == "passed"
