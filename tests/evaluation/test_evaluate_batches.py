"""Evaluation of a linear network, whose robust accuracy is known; independence of batching; every check made to fire."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.evaluation import named_threat
from bap_jax.mathematics import margin_loss
from bap_jax.types import AttackResult, Batch, Bounds, Threat

N, D = 21, 6
_random = np.random.RandomState(11)
WEIGHTS = jnp.asarray(_random.randn(D, 2), jnp.float32)
IMAGES = (_random.rand(N, D) * 0.6 + 0.2).astype(np.float32)  # 0.2 from the walls
LOGITS = (IMAGES - 0.5) @ np.asarray(WEIGHTS)
LABELS = LOGITS.argmax(1).astype(np.int32)
LABELS[:3] = 1 - LABELS[:3]  # three examples are wrong already
NORMAL = np.asarray(WEIGHTS[:, 0] - WEIGHTS[:, 1])
LEAD = np.where(LOGITS.argmax(1) == LABELS, np.abs((IMAGES - 0.5) @ NORMAL), 0)
KEY = jax.random.key(0)
EPSILONS = (0.0, 0.01, 0.02, 0.05, 0.2)


def linear(weights, images):
    return (images - 0.5) @ weights


def batches(size, images=IMAGES, labels=LABELS):
    for start in range(0, len(images), size):
        rows = min(size, len(images) - start)
        pad = size - rows
        index = np.r_[np.arange(start, start + rows), np.full(pad, len(images))].astype(np.int32)
        padded = np.concatenate([images[start : start + rows], np.zeros((pad, *images.shape[1:]), np.float32)])
        yield Batch(padded, np.r_[labels[start : start + rows], np.zeros(pad, np.int32)], index, (index < len(images)) * 1.0)


def expected(norm, epsilons):
    distance = LEAD / np.linalg.norm(NORMAL, {"linf": 1, "l2": 2}[norm])
    gap = np.abs(distance[None] - np.asarray(epsilons)[:, None])
    assert gap[:, LEAD > 0].min() > 1e-4 * 0.3  # no example so near to a budget that rounding decides
    return (distance[None] > np.asarray(epsilons)[:, None]).mean(1)


def statuses(result):
    return {check.name: check.status for check in result.checks}


def test_a_linear_networks_accuracies_are_the_analytic_ones():
    threats = [
        named_threat("pgd", num_steps=10),
        named_threat("fgsm"),
        named_threat("pgd", norm="l2", num_steps=30, relative_step_size=0.25),
        named_threat("deepfool", norm="l2", num_steps=4, overshoot=1e-4),
    ]
    seen = []
    result = evaluate(linear, WEIGHTS, batches(8), threats, {"linf": EPSILONS, "l2": EPSILONS}, KEY, progress=seen.append)
    assert result.num_examples == N
    assert result.clean_accuracy == pytest.approx(18 / 21)
    for name, norm in (("pgd-10-linf", "linf"), ("fgsm-linf", "linf"), ("pgd-30-l2", "l2"), ("deepfool-4-l2", "l2")):
        np.testing.assert_allclose(result.robust_accuracy[name], expected(norm, EPSILONS))
        assert result.success[name].shape == (5, N)
    for norm in ("linf", "l2"):
        np.testing.assert_allclose(result.worst_case[norm], expected(norm, EPSILONS))
    np.testing.assert_allclose(result.distance["deepfool-4-l2"], LEAD / np.linalg.norm(NORMAL), rtol=2e-2)
    np.testing.assert_array_equal(result.index, np.arange(N))
    np.testing.assert_array_equal(result.label, LABELS)
    np.testing.assert_array_equal(result.prediction, LOGITS.argmax(1))
    assert set(statuses(result).values()) == {"passed"}, [check for check in result.checks if check.status != "passed"]
    assert len(seen) == 3 * (3 * 4 + 1)  # the 18 correct examples in three batches, for every attack at every ε but 0
    assert (seen[2].done, seen[2].total, seen[-1].epsilon) == (18, 18, np.inf) and seen[-1].fraction == pytest.approx(1)


def test_batch_size_padding_and_a_mesh_change_nothing():
    threats = [
        named_threat("pgd", num_steps=3, restarts=2, objective=margin_loss),
        named_threat("deepfool", norm="l2", num_steps=5),
    ]
    one = evaluate(linear, WEIGHTS, batches(21), threats, EPSILONS, KEY)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    weights = jax.device_put(WEIGHTS, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    spread = evaluate(linear, weights, batches(8), threats, EPSILONS, KEY, put=lambda batch: jax.device_put(batch, rows))
    for other in (spread, evaluate(linear, WEIGHTS, batches(8), threats, EPSILONS, KEY)):
        np.testing.assert_array_equal(other.success["pgd-3-x2-linf"], one.success["pgd-3-x2-linf"])
        np.testing.assert_array_equal(other.prediction, one.prediction)
        np.testing.assert_allclose(other.distance["deepfool-5-l2"], one.distance["deepfool-5-l2"], rtol=1e-4)
        assert statuses(other) == statuses(one)


def test_another_checkpoint_other_budgets_and_new_threats_compile_nothing():
    traces = []

    def counted(weights, images):
        traces.append(1)
        return (images - 0.5) @ weights

    threats = [named_threat("pgd", num_steps=2), named_threat("deepfool", norm="l2", num_steps=2)]
    evaluate(counted, WEIGHTS, batches(7), threats, [0.1], KEY)
    before = len(traces)
    again = [named_threat("pgd", num_steps=2), named_threat("deepfool", norm="l2", num_steps=2)]
    evaluate(counted, WEIGHTS * 0.5, batches(7), again, [0.0, 0.05, 0.2], jax.random.key(1))
    assert len(traces) == before


def test_the_worst_case_is_taken_per_example():
    """Two attacks that fool different halves leave what one on the whole would, though each alone leaves half."""

    def half(parity):
        def attack(logits_fn, keys, images, labels, epsilon):
            sign = jnp.where(labels == 0, -1.0, 1.0)[:, None] * jnp.sign(jnp.asarray(NORMAL))[None]
            chosen = (jnp.arange(len(images)) % 2 == parity)[:, None]
            moved = images + epsilon * jnp.where(chosen, sign, 0)
            return AttackResult(moved, jnp.zeros(len(images), bool), jnp.zeros((1, len(images))))

        return Threat(f"half-{parity}", "linf", Bounds(), False, attack)

    result = evaluate(linear, WEIGHTS, batches(N), [half(0), half(1)], [0.2], KEY)
    assert min(result.robust_accuracy[name][0] for name in ("half-0", "half-1")) > 0.3
    np.testing.assert_allclose(result.worst_case["linf"], expected("linf", [0.2]))


def test_probabilities_instead_of_logits_fail():
    result = evaluate(lambda w, x: jax.nn.softmax((x - 0.5) @ w), WEIGHTS, batches(N), [], [0.1], KEY)
    assert statuses(result)["outputs are logits"] == "failed"
    assert result.clean_accuracy == pytest.approx(18 / 21) and result.worst_case == {}


@pytest.mark.parametrize("model, status", [
    (lambda w, x: jnp.round((x - 0.5) @ w * 100) / 100, "failed"),
    (lambda w, x: (x - 0.5) @ w * 30, "warned"),
])  # fmt: skip
def test_killed_and_saturated_gradients_are_reported(model, status):
    assert statuses(evaluate(model, WEIGHTS, batches(N), [], [0.1], KEY))["input gradients"] == status


def test_nan_outputs_fail():
    result = evaluate(linear, WEIGHTS.at[0, 0].set(jnp.nan), batches(N), [named_threat("pgd", num_steps=2)], [0.1], KEY)
    found = statuses(result)
    assert found["finite outputs"] == found["finite input gradients"] == found["pgd-2-linf: finite points"] == "failed"


def noise_at_run_time(weights, images):
    shape = jax.ShapeDtypeStruct((len(images), 2), jnp.float32)
    return (images - 0.5) @ weights + jax.pure_callback(lambda: np.random.randn(len(images), 2).astype(np.float32), shape)


def noise_while_tracing(weights, images):
    return (images - 0.5) @ weights + np.random.randn(1, 2).astype(np.float32)


@pytest.mark.parametrize("model", [noise_at_run_time, noise_while_tracing])
def test_randomised_outputs_fail(model):
    assert statuses(evaluate(model, WEIGHTS, batches(N), [], [0.1], KEY))["deterministic outputs"] == "failed"


def wrong_threat(change):
    def attack(logits_fn, keys, images, labels, epsilon):
        zero = jnp.zeros(len(images), bool)
        return AttackResult(change(images, epsilon), zero, jnp.zeros((1, len(images))))

    return Threat("wrong", "linf", Bounds(), False, attack)


def test_points_outside_ball_or_box_are_reported_and_not_counted():
    far = evaluate(linear, WEIGHTS, batches(N), [wrong_threat(lambda x, eps: 1 - x)], [0.001], KEY)
    assert statuses(far)["wrong: points in the ball"] == "failed"
    assert far.robust_accuracy["wrong"][0] == far.clean_accuracy
    out = evaluate(linear, WEIGHTS, batches(N), [wrong_threat(lambda x, eps: x - eps)], [0.9], KEY)
    assert statuses(out)["wrong: points in the box"] == "failed"
    assert statuses(out)["wrong: points in the ball"] == "passed"
    assert out.robust_accuracy["wrong"][0] == out.clean_accuracy


def test_an_adversarial_point_met_but_not_returned_is_reported():
    def attack(logits_fn, keys, images, labels, epsilon):
        return AttackResult(images, jnp.ones(len(images), bool), jnp.zeros((1, len(images))))

    result = evaluate(linear, WEIGHTS, batches(N), [Threat("lost", "linf", Bounds(), False, attack)], [0.1], KEY)
    assert statuses(result)["lost: adversarial points returned"] == "warned"


def test_an_attack_that_weakens_with_its_budget_is_reported():
    def change(images, epsilon):
        return images + jnp.where(epsilon < 0.15, epsilon, 0.0) * jnp.sign(jnp.asarray(NORMAL))[None]

    result = evaluate(linear, WEIGHTS, batches(N), [wrong_threat(change)], [0.0, 0.1, 0.2], KEY)
    assert statuses(result)["wrong: accuracy does not rise with ε"] == "failed"


def test_too_short_an_attack_is_reported_as_still_moving_and_weaker_than_one_step():
    short = named_threat("pgd", num_steps=4, step_size=0.001, random_start=False, name="short")
    result = evaluate(linear, WEIGHTS, batches(N), [short, named_threat("fgsm")], [0.2], KEY)
    assert statuses(result)["short: the loss has settled"] == "warned"
    assert statuses(result)["short is at least as strong as fgsm-linf at ε = 0.2"] == "warned"


def test_repeated_examples_fail():
    twice = [next(batches(N)), next(batches(N))]
    assert statuses(evaluate(linear, WEIGHTS, twice, [], [0.1], KEY))["every example once"] == "failed"


def test_settings_that_hold_arrays_work_too():
    bounds = Bounds(jnp.zeros(D), jnp.ones(D))
    result = evaluate(linear, WEIGHTS, batches(N), [named_threat("fgsm", bounds=bounds)], [0.01], KEY)
    np.testing.assert_allclose(result.robust_accuracy["fgsm-linf"], expected("linf", [0.01]))


@pytest.mark.parametrize("change, name", [
    ({"epsilons": [-0.1]}, "epsilons"),
    ({"epsilons": [float("nan")]}, "epsilons"),
    ({"epsilons": []}, "epsilons"),
    ({"epsilons": {"l2": [0.1]}}, "epsilons"),
    ({"threats": [named_threat("fgsm"), named_threat("fgsm")]}, "threats"),
    ({"batches": []}, "batches"),
    ({"batches": batches(N, labels=LABELS + 1)}, "labels"),
    ({"batches": batches(N, labels=LABELS - 1)}, "labels"),
    ({"batches": batches(N, images=IMAGES * 255)}, "images"),
    ({"batches": batches(N, images=IMAGES * np.nan)}, "images"),
])  # fmt: skip
def test_what_cannot_be_is_refused(change, name):
    settings = {"batches": batches(N), "threats": [named_threat("fgsm")], "epsilons": [0.1], **change}
    with pytest.raises(SettingError) as error:
        evaluate(linear, WEIGHTS, settings["batches"], settings["threats"], settings["epsilons"], KEY)
    assert error.value.name == name


@pytest.mark.parametrize("change", [
    {"num_steps": 0}, {"num_steps": None}, {"step_size": 0.1, "relative_step_size": 0.1},
    {"step_size": 0.0}, {"relative_step_size": -1.0},
])  # fmt: skip
def test_threats_refuse_settings_that_cannot_be(change):
    with pytest.raises(SettingError):
        named_threat("pgd", **change)
