"""Attacks made once and cut to every budget: on networks whose answers along the perturbation are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import bap_deepfool
from bap_jax.evaluation import Surrogate, cascade, named_threat
from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.evaluation.truncated import Truncated, cut
from bap_jax.types import AttackResult, Batch, Bounds, Threat

N, D = 18, 6
_random = np.random.RandomState(5)
WEIGHTS = jnp.asarray(_random.randn(D, 2), jnp.float32)
IMAGES = (_random.rand(N, D) * 0.6 + 0.2).astype(np.float32)
LOGITS = (IMAGES - 0.5) @ np.asarray(WEIGHTS)
LABELS = LOGITS.argmax(1).astype(np.int32)
LABELS[:3] = 1 - LABELS[:3]  # three examples are wrong already
NORMAL = np.asarray(WEIGHTS[:, 0] - WEIGHTS[:, 1])
DISTANCE = np.abs((IMAGES - 0.5) @ NORMAL) / np.linalg.norm(NORMAL) / np.sqrt(D)  # to the plane, in RMS
KEY = jax.random.key(0)


def linear(weights, images):
    return (images - 0.5) @ weights


def batches(size, images=IMAGES, labels=LABELS):
    for start in range(0, len(images), size):
        part = np.arange(start, min(start + size, len(images)))
        rows, real = np.resize(part, size), np.arange(size) < len(part)
        yield Batch(images[rows], labels[rows], np.where(real, rows, len(images)).astype(np.int32), real * 1.0)


def statuses(result):
    return {check.name: check.status for check in result.checks}


def test_cutting():
    delta = jnp.array([[0.3, -0.6, 0.0, 0.0]])
    np.testing.assert_allclose(cut(jnp.full((1, 4), 0.5), 0.5 + delta, 0.2, "linf") - 0.5, [[0.2, -0.2, 0, 0]], atol=1e-7)
    rms = float(jnp.sqrt(jnp.mean(delta**2)))
    shorter = cut(jnp.full((1, 4), 0.5), 0.5 + delta, rms / 3, "rms", Bounds(-1.0, 1.0)) - 0.5
    np.testing.assert_allclose(shorter, delta / 3, atol=1e-7)
    for radius in (rms * 1.01, jnp.float32(np.inf)):  # what is inside stays
        np.testing.assert_array_equal(cut(jnp.zeros((1, 4)), delta, radius, "rms", Bounds(-1.0, 1.0)), delta)


def test_cut_deepfool_of_a_linear_network_counts_distances():
    epsilons = (0.0, *np.quantile(DISTANCE, [0.2, 0.5, 0.8]) * 1.003, 0.9)
    threats = [named_threat("deepfool-truncated", norm="rms"), named_threat("pgd", norm="rms", num_steps=30)]
    sources = [Surrogate("twin", linear, WEIGHTS)]
    result = evaluate(linear, WEIGHTS, batches(8), threats, {"rms": epsilons}, KEY, sources=sources, keep_examples=True)
    right = np.r_[[False] * 3, [True] * (N - 3)]
    expected = [np.mean(right & (epsilon < DISTANCE)) for epsilon in epsilons]
    np.testing.assert_allclose(result.robust_accuracy["deepfool-truncated-rms"], expected)
    np.testing.assert_allclose(result.distance["deepfool-truncated-rms"], np.where(right, 1.02 * DISTANCE, 0), atol=1e-5)
    # led away from what is predicted, a wrong example becomes right: told beside the accuracy, never counted in it
    np.testing.assert_allclose(
        result.repaired["deepfool-truncated-rms"], [np.mean(~right & (epsilon >= DISTANCE)) for epsilon in epsilons]
    )
    assert result.examples["deepfool-truncated-rms"].shape == (4, N, D)
    moved = np.sqrt(np.mean((result.examples["deepfool-truncated-rms"] - IMAGES) ** 2, axis=2))
    assert (moved <= np.asarray(epsilons[1:])[:, None] * (1 + 1e-5)).all()
    assert "pgd-30-rms from twin" in result.epsilons and "deepfool-truncated-rms from twin" not in result.epsilons
    failed = [check for check in result.checks if check.status != "passed"]
    assert not failed and statuses(result)["deepfool-truncated-rms: cut points, read beside a real attack"] == "passed"


def curve(values, images):
    """Class 0 below 0.5 and above 0.7, class 1 between: a longer piece of one line leads back."""
    inside = (images[:, 0] - values[0]) * (values[1] - images[:, 0])
    return jnp.stack([jnp.zeros(len(images)), inside], axis=1)


def to_the_right(logits_fn, keys, images, labels, epsilon):
    moved = jnp.full_like(images, 0.9)
    missed = jnp.argmax(logits_fn(moved), axis=1) != labels
    return AttackResult(moved, missed, jnp.zeros((1, len(images))))


def test_accuracy_may_rise_and_wrong_examples_stay_wrong():
    calls = []

    def counted(*arguments):
        jax.debug.callback(lambda: calls.append(1))
        return to_the_right(*arguments)

    threat = Threat("line", "linf", Bounds(), False, Truncated(counted, "linf", Bounds(), False))
    images = np.array([[0.4], [0.45], [0.3], [0.6]], np.float32)
    labels = np.zeros(4, np.int32)  # the last one is wrong
    kept = {}
    options = {"recall": lambda name: kept.get(name), "record": kept.__setitem__}
    budgets = [0.0, 0.07, 0.15, 0.35, 0.6]
    told = []
    result = evaluate(
        curve, jnp.array([0.5, 0.7]), batches(3, images, labels), [threat], budgets, KEY, progress=told.append, **options
    )
    np.testing.assert_allclose(result.robust_accuracy["line"], [0.75, 0.5, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(result.repaired["line"], [0, 0, 0.25, 0.25, 0.25])
    assert len(calls) == 2 and len([name for name in kept if "/points/" in name]) == 2  # two batches, made once for four budgets
    assert told[-1].fraction == pytest.approx(1) and [one.done for one in told] == [3, 4] * 4
    check = next(check for check in result.checks if "cut points" in check.name)
    assert check.status == "warned" and "1 put right by it, largest rise 50.00 points" in check.value and "pgd" in check.advice
    assert not any("does not rise" in name or "withstands" in name or "nearer" in name for name in statuses(result))
    assert "line" not in result.distance

    again = {name: rows for name, rows in kept.items() if "/points/" in name}  # cut off after the points were made
    once_more = evaluate(curve, jnp.array([0.5, 0.7]), batches(3, images, labels), [threat], budgets, KEY, recall=again.get)
    assert len(calls) == 2
    np.testing.assert_array_equal(once_more.success["line"], result.success["line"])


def test_cut_fgsm_is_fgsm():
    """sgn(g) as long as the box, clipped to ±ε, is the step of FGSM: the two columns have to be one."""
    threats = [named_threat("fgsm-truncated"), named_threat("fgsm"), named_threat("pgd", num_steps=4)]
    epsilons = [0.0, 0.02, 0.05, 0.1, 0.4]
    result = evaluate(network, WIDE, batches(9), threats, epsilons, KEY)
    np.testing.assert_array_equal(result.success["fgsm-truncated-linf"], result.success["fgsm-linf"])
    assert 0 < result.robust_accuracy["fgsm-linf"][2] < result.clean_accuracy
    assert statuses(result)["fgsm-truncated-linf: cut points, read beside a real attack"] == "passed"


def test_a_real_attack_that_is_weaker_is_found_out():
    weak = named_threat("pgd", num_steps=2, step_size=1e-4, random_start=False)
    threats = [named_threat("fgsm-truncated"), weak]
    result = evaluate(network, WIDE, batches(9), threats, [0.0, 0.02, 0.05, 0.1, 0.4], KEY, controls=False)
    check = next(check for check in result.checks if "cut points" in check.name)
    assert check.status == "warned" and "weaker" in check.advice and f"beside {weak.name}" in check.value


def network(weights, images):
    return jnp.tanh((images - 0.5) @ weights[0]) @ weights[1]


WIDE = (jnp.asarray(_random.randn(D, 12), jnp.float32), jnp.asarray(_random.randn(12, 2), jnp.float32))


def test_the_deepfool_is_the_authors():
    whole = named_threat("deepfool-truncated", norm="rms").attack.attack
    ours = jax.jit(lambda: whole(lambda x: network(WIDE, x), None, jnp.asarray(IMAGES), jnp.asarray(LABELS), jnp.inf))()
    theirs = jax.jit(
        lambda: bap_deepfool(lambda x: network(WIDE, x), None, jnp.asarray(IMAGES), jnp.asarray(LABELS), num_steps=100)
    )()
    np.testing.assert_allclose(ours.images, theirs.images, atol=1e-6)
    assert ours.loss.shape == (100, N)


def test_it_is_an_attack_like_any_other():
    threat = named_threat("fgsm-truncated", bounds=Bounds(-1.0, 2.0))
    assert threat == named_threat("fgsm-truncated", bounds=Bounds(-1.0, 2.0)) and not threat.minimal and threat.stronger is None
    both = cascade("both", [named_threat("fgsm-truncated"), named_threat("pgd", num_steps=3)])
    result = evaluate(linear, WEIGHTS, batches(N), [both, named_threat("pgd", num_steps=3)], [0.05], KEY, controls=False)
    np.testing.assert_array_equal(result.success["both"], result.success["pgd-3-linf"])  # both are exact on a linear network
    assert not any(status == "failed" for status in statuses(result).values())
