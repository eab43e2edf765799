"""APGD against the analytic distances of linear classifiers, what its docstrings promise, and runs of public implementations.

apgd.json was recorded with torchattacks 3.5.1 and adv-lib 0.2.8 (torch 2.13, float64 throughout, Python 3.11) on the network
``DIGITS`` below, with torch.rand, torch.randn and torch.randn_like replaced by the fixed arrays UNIFORM and NORMAL:
  APGD(net, norm="Linf", eps=.075, steps=100, loss="ce")(x, y)       -> "linf_ce"; loss="dlr" -> "linf_dlr"
  APGD(net, norm="L2", eps=.42, steps=100, loss="ce")(x, y)          -> "l2_ce"
  APGDT(net, norm=..., eps=..., steps=50, n_classes=10)(x, y)        -> "linf_targeted", "l2_targeted"; every example in a batch
      of its own (its L2 form takes the step size of the batch's first example for all), each starting with the first row
  apgd(net, x, y, 1.3, 1, n_iter=100, loss_function="ce")            -> "l1_ce"; use_large_reps=True -> "l1_ce_large"
"found": one digit per example; "loss": the loss of the first 12 examples after the steps in "steps".
"""

import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from bap_jax.attacks.apgd import apgd
from bap_jax.attacks.apgd_targeted import apgd_targeted
from bap_jax.errors import SettingError
from bap_jax.mathematics import (
    clip_to_bounds,
    cross_entropy,
    dlr,
    dual_norm,
    margin,
    margin_loss,
    misclassified,
    per_example_norm,
)
from bap_jax.types import Bounds

module = importlib.import_module("bap_jax.attacks._apgd_ascent")

BOTH = ("logits_fn", "norm", "num_steps", "rho", "eot_samples", "random_logits", "large_epsilon_schedule")
attack = jax.jit(apgd, static_argnames=(*BOTH, "restarts", "targeted", "objective"))
attack_targeted = jax.jit(apgd_targeted, static_argnames=(*BOTH, "num_targets"))
WIDE = Bounds(-100.0, 100.0)
_random = np.random.RandomState(3)
WEIGHTS = _random.randn(12, 5) * 0.3
WEIGHTS[:2] = [3, -1.5, 0, 1.5, 4]  # two features matter alike and most: L1 steps, as published, never go along one alone
WEIGHTS = jnp.asarray(WEIGHTS, jnp.float32)
HIDDEN = jnp.asarray(_random.randn(12, 16), jnp.float32)
OUT = jnp.asarray(_random.randn(16, 5), jnp.float32)
IMAGES = jnp.asarray(_random.rand(6, 2, 2, 3), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 6)


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS


def two_classes(images):
    return linear(images)[:, :2]


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ HIDDEN) @ OUT


def flat(images):
    return jnp.zeros((len(images), 5))


LABELS = jnp.argmax(network(IMAGES), axis=1)
NORMS = [("linf", False), ("l2", False), ("l1", False), ("l1", True)]


@pytest.mark.parametrize("norm, large", NORMS)
def test_a_linear_network_falls_just_beyond_its_margin_and_not_before(norm, large):
    labels = jnp.argmax(two_classes(IMAGES), axis=1)
    normal = (WEIGHTS[:, 0] - WEIGHTS[:, 1])[None]
    distance = margin(two_classes(IMAGES), labels) / per_example_norm(normal, dual_norm(norm))[0]
    settings = {"norm": norm, "large_epsilon_schedule": large, "num_steps": 60}
    for factor in (1.01, 0.99):
        result = attack(two_classes, KEYS, IMAGES, labels, epsilon=distance * factor, bounds=WIDE, **settings)
        np.testing.assert_array_equal(result.found, factor > 1)
        np.testing.assert_array_equal(misclassified(two_classes(result.images), labels), factor > 1)


def nearest_plane(norm):
    """The labels of the linear network and the distance to the nearest of the planes around each image."""
    logits = linear(IMAGES)
    labels = jnp.argmax(logits, axis=1)
    normals = WEIGHTS.T[None] - WEIGHTS.T[labels][:, None]  # [B, K, D]
    sizes = jax.vmap(lambda rows: per_example_norm(rows, dual_norm(norm)))(normals)
    gaps = logits[jnp.arange(6), labels][:, None] - logits
    return labels, jnp.min(jnp.where(sizes > 0, gaps / sizes, jnp.inf), axis=1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_targeted_runs_find_the_nearest_of_several_planes(norm):
    labels, distance = nearest_plane(norm)
    for factor in (1.01, 0.99):
        result = attack_targeted(linear, KEYS, IMAGES, labels, epsilon=distance * factor, norm=norm, bounds=WIDE, num_steps=60)
        np.testing.assert_array_equal(result.found, factor > 1)
        np.testing.assert_array_equal(misclassified(linear(result.images), labels), factor > 1)


@pytest.mark.parametrize(
    "norm, large, epsilon", [("linf", 0, 0.2), ("l2", 0, 0.5), ("l1", 0, 1.0), ("l1", 1, 1.0), ("rms", 0, 0.1)]
)
def test_points_lie_in_ball_and_box_raise_the_loss_and_rows_are_independent(norm, large, epsilon):
    epsilons = epsilon * jnp.linspace(0.0, 1.5, 6)  # one per example
    bounds = Bounds(jnp.array([-1.0, -0.5, 0.0]), jnp.array([1.0, 1.5, 1.0]))  # one per channel
    settings = {"norm": norm, "bounds": bounds, "num_steps": 12, "restarts": 2, "large_epsilon_schedule": bool(large)}
    result = attack(network, KEYS, IMAGES, LABELS, epsilon=epsilons, **settings)
    assert result.loss.shape == (12, 6) and jnp.all(jnp.isfinite(result.loss))
    assert jnp.all(per_example_norm(result.images - IMAGES, norm) <= epsilons * (1 + 1e-5) + 1e-6)
    np.testing.assert_array_equal(clip_to_bounds(result.images, bounds), result.images)
    rise = cross_entropy(network(result.images), LABELS) - cross_entropy(network(IMAGES), LABELS)
    assert jnp.all(rise[1:] > 0)
    np.testing.assert_array_equal(result.images[0], IMAGES[0])  # ε = 0 is exact
    padded = IMAGES.at[2:].set(0), LABELS.at[2:].set(0)
    again = attack(network, KEYS.at[2:].set(KEYS[0]), *padded, epsilon=epsilons, **settings)
    np.testing.assert_allclose(again.images[:2], result.images[:2], atol=1e-5)


def test_part_of_a_batch_gets_what_it_gets_in_the_whole():
    whole = attack_targeted(network, KEYS, IMAGES, LABELS, epsilon=0.1, num_steps=8)
    part = attack_targeted(network, KEYS[:2], IMAGES[:2], LABELS[:2], epsilon=0.1, num_steps=8)
    np.testing.assert_allclose(part.images, whole.images[:2], atol=1e-5)


@pytest.mark.parametrize("norm, large", NORMS)
def test_zero_gradients_give_no_nan(norm, large):
    settings = {"epsilon": 0.3, "norm": norm, "num_steps": 8, "large_epsilon_schedule": large}
    result = (attack_targeted if large else attack)(flat, KEYS, IMAGES, LABELS * 0, **settings)
    assert jnp.all(jnp.isfinite(result.images)) and jnp.all(jnp.isfinite(result.loss))
    assert not jnp.any(result.found)


@pytest.mark.parametrize("objective", [cross_entropy, margin_loss])
def test_wanted_classes_are_reached(objective):
    targets = (LABELS + 1) % 5
    result = attack(network, KEYS, IMAGES, targets, epsilon=1.0, num_steps=40, targeted=True, objective=objective)
    reached = jnp.argmax(network(result.images), axis=1) == targets
    np.testing.assert_array_equal(result.found, reached)
    assert jnp.sum(reached) >= 5
    assert jnp.all(result.loss[-1] < objective(network(IMAGES), targets))


def test_restarts_run_alone_or_together_without_recompiling():
    settings = {"epsilon": 0.12, "num_steps": 2}
    before = attack._cache_size()
    alone = [attack(network, KEYS, IMAGES, LABELS, first_restart=jnp.int32(r), **settings) for r in range(4)]
    assert attack._cache_size() == before + 1
    together = attack(network, KEYS, IMAGES, LABELS, restarts=3, first_restart=jnp.int32(1), **settings)
    found = np.stack([result.found for result in alone[1:]])
    assert len(np.unique(found, axis=0)) > 1  # restarts differ
    np.testing.assert_array_equal(together.found, found.any(axis=0))
    for row in range(6):
        scores = [cross_entropy(network(result.images), LABELS)[row] for result in alone[1:]]
        chosen = alone[1 + int(found[:, row].argmax() if found[:, row].any() else np.argmax(scores))]
        np.testing.assert_allclose(together.images[row], chosen.images[row], atol=1e-5)
        np.testing.assert_allclose(together.loss[:, row], chosen.loss[:, row], atol=1e-4)


def test_ranks_run_alone_or_together_without_recompiling():
    labels, distance = nearest_plane("linf")
    settings = {"epsilon": distance * jnp.where(jnp.arange(6) == 1, 0.9, 1.05), "num_steps": 60, "bounds": WIDE}
    before = attack_targeted._cache_size()
    alone = [
        attack_targeted(linear, KEYS, IMAGES, labels, num_targets=1, first_target=jnp.int32(r), **settings) for r in range(1, 7)
    ]
    assert attack_targeted._cache_size() == before + 1
    together = attack_targeted(linear, KEYS, IMAGES, labels, **settings)
    found = np.stack([result.found for result in alone[:4]])
    assert np.any(found[1:] & ~found[:1])  # the nearest plane need not be that of the second largest logit
    np.testing.assert_array_equal(together.found, np.arange(6) != 1)
    np.testing.assert_array_equal(found.any(axis=0), together.found)
    for row in np.flatnonzero(together.found):
        np.testing.assert_allclose(together.images[row], alone[found[:, row].argmax()].images[row], atol=1e-4)
    for beyond in alone[4:]:  # there are four wrong classes
        np.testing.assert_array_equal(beyond.images, IMAGES)
        assert not jnp.any(beyond.found)
    np.testing.assert_array_equal(together.found, misclassified(linear(together.images), labels))


def test_what_is_misclassified_already_comes_back_from_the_targeted_attack():
    result = attack_targeted(network, KEYS, IMAGES, (LABELS + 1) % 5, epsilon=0.12, num_steps=8)
    np.testing.assert_array_equal(result.images, IMAGES)
    np.testing.assert_array_equal(result.found, True)


def test_the_latest_adversarial_point_comes_back_and_else_the_best():
    def shell(images):  # one feature: class 1 wins in a thin shell, and the third logit is what the objective reads
        inside = (images > 0.6199) & (images < 0.6201)
        return jnp.concatenate([0 * images, jnp.where(inside, 5.0, -5.0), -100 - (images - 0.75) ** 2], axis=1)

    images, labels, third = jnp.full((2, 1), 0.5), jnp.zeros(2, int), lambda logits, labels: logits[:, 2]
    settings = {"epsilon": 0.4, "num_steps": 20, "objective": third}
    result = attack(shell, None, images, labels, start=jnp.array([[0.62], [0.4]]), **settings)
    np.testing.assert_array_equal(result.found, [True, False])
    np.testing.assert_allclose(result.images[0], 0.62, atol=1e-6)  # the only one met, and by far not the best
    np.testing.assert_allclose(-100 - (result.images[1] - 0.75) ** 2, result.loss[:, 1].max(), atol=1e-4)
    np.testing.assert_allclose(result.images[1], 0.75, atol=0.02)


def noisy(images, keys):
    rough = jax.vmap(lambda key: jax.random.normal(key, (12, 5)))(keys)
    return linear(images) + 4 * jnp.einsum("bd,bdk->bk", images.reshape(len(images), -1) - 0.5, rough)


def test_samples_of_a_random_network_are_averaged():
    labels = jnp.argmax(linear(IMAGES), axis=1)
    doubt = lambda logits, labels: -jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]  # noqa: E731
    settings = {"epsilon": 0.3, "num_steps": 10, "objective": doubt, "random_logits": True}
    gained = []
    for samples in (2, 64):
        result = attack(noisy, KEYS, IMAGES, labels, eot_samples=samples, **settings)
        again = attack(noisy, KEYS, IMAGES, labels, eot_samples=samples, **settings)
        np.testing.assert_array_equal(result.images, again.images)
        gained.append(doubt(linear(result.images), labels) - doubt(linear(IMAGES), labels))
        assert len(np.unique(np.asarray(result.loss[:, 0]))) > 5
    assert jnp.all(gained[1] > gained[0]) and jnp.all(gained[0] > 0)
    certain = lambda images, keys: network(images)  # noqa: E731
    settings = {"epsilon": 0.1, "num_steps": 5}
    drawn = attack(certain, KEYS, IMAGES, LABELS, eot_samples=3, random_logits=True, **settings)
    np.testing.assert_allclose(drawn.images, attack(network, KEYS, IMAGES, LABELS, **settings).images, atol=1e-5)
    assert jnp.all(
        attack_targeted(noisy, KEYS, IMAGES, labels, eot_samples=2, random_logits=True, epsilon=2.0, num_steps=9).found
    )


def test_one_forward_and_one_backward_pass_per_step():
    """The loop holds the network's two products and their two derivatives, and nothing outside it does."""
    for restarts in (1, 3):
        run = jax.jit(lambda images, r=restarts: apgd(network, KEYS, images, LABELS, epsilon=0.1, num_steps=7, restarts=r))
        text = run.lower(IMAGES).compile().as_text()
        assert text.count(" dot(") + text.count("__onednn$matmul") == 4
        assert '"known_trip_count":{"n":"8"}' in text  # the start, and seven steps


def test_checkpoints_stand_where_the_paper_puts_them():
    at = lambda num_steps, sparse: list(np.flatnonzero(module._periods(num_steps, sparse=sparse)) + 1)  # noqa: E731
    assert at(100, False) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert at(10, False) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert at(1, False) == [1]
    assert at(100, True) == list(range(4, 101, 4))
    assert list(module._periods(100, sparse=False)[[21, 40, 56]]) == [22, 19, 16]


def test_no_gradient_flows_through_the_result():
    def loss(scale):
        scaled = lambda images: network(images) * scale  # noqa: E731
        result = apgd_targeted(scaled, KEYS, IMAGES, LABELS, epsilon=0.1, num_steps=2)
        return jnp.sum(result.images) + jnp.sum(result.loss)

    assert jax.jit(jax.grad(loss))(2.0) == 0


@pytest.mark.parametrize("norm, large", [("linf", False), ("l1", True)])
def test_the_same_points_on_one_device_on_a_mesh_and_under_shard_map(norm, large):
    images, labels, keys = (jnp.concatenate([leaf, leaf[:2]]) for leaf in (IMAGES, LABELS, KEYS))
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    rows = jax.sharding.PartitionSpec("batch")
    settings = {"epsilon": 0.1, "norm": norm, "num_steps": 5, "large_epsilon_schedule": large}

    def run(keys, images, labels):
        if large:
            result = apgd_targeted(network, keys, images, labels, **settings)
        else:
            result = apgd(network, keys, images, labels, restarts=2, **settings)
        return result.images, result.found

    expected = jax.jit(run)(keys, images, labels)
    spread = jax.device_put((keys, images, labels), jax.sharding.NamedSharding(mesh, rows))
    for got in (jax.jit(run)(*spread), jax.jit(jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows))(*spread)):
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), got, expected)


GOOD = {"epsilon": 0.1, "num_steps": 4}


@pytest.mark.parametrize("call, change, name", [
    (apgd, {"epsilon": -0.1}, "epsilon"),
    (apgd, {"epsilon": jnp.ones(5)}, "values"),
    (apgd, {"num_steps": 0}, "num_steps"),
    (apgd, {"num_steps": 3, "norm": "l1", "large_epsilon_schedule": True}, "num_steps"),
    (apgd, {"large_epsilon_schedule": True}, "large_epsilon_schedule"),
    (apgd, {"restarts": 0}, "restarts"),
    (apgd, {"restarts": 2, "start": IMAGES}, "restarts"),
    (apgd, {"first_restart": -1}, "first_restart"),
    (apgd, {"norm": "l0"}, "norm"),
    (apgd, {"rho": 1.5}, "rho"),
    (apgd, {"eot_samples": 2}, "eot_samples"),
    (apgd, {"eot_samples": 0}, "eot_samples"),
    (apgd, {"start": IMAGES[:2]}, "start"),
    (apgd, {"keys": None}, "keys"),
    (apgd, {"labels": LABELS.astype(float)}, "labels"),
    (apgd, {"images": (IMAGES * 255).astype(jnp.uint8)}, "images"),
    (apgd, {"logits_fn": two_classes, "objective": dlr}, "logits"),
    (apgd_targeted, {"logits_fn": lambda images: linear(images)[:, :3]}, "logits"),
    (apgd_targeted, {"num_targets": 0}, "num_targets"),
    (apgd_targeted, {"first_target": 0}, "first_target"),
    (apgd_targeted, {"first_target": 5}, "first_target"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, change, name):
    settings = {"logits_fn": network, "keys": KEYS, "images": IMAGES, "labels": LABELS, **GOOD, **change}
    with pytest.raises(SettingError) as error:
        call(settings.pop("logits_fn"), settings.pop("keys"), settings.pop("images"), settings.pop("labels"), **settings)
    assert error.value.name == name


RECORDED = json.loads((pathlib.Path(__file__).parent / "apgd.json").read_text())
_starts = np.random.RandomState(1)
UNIFORM, NORMAL = (draw.astype(np.float32).astype(float) for draw in (_starts.rand(64, 64), _starts.randn(64, 64)))


def digits():
    """Random features of the 8×8 digits with a ridge regression on top (93 % accurate), and the first 64 that it gets right."""
    pixels, classes = load_digits(return_X_y=True)
    random = np.random.RandomState(0)
    hidden, shift = random.randn(64, 48) * 0.4, random.randn(48) * 0.5
    features = np.tanh((pixels / 16 - 0.3) @ hidden + shift)
    out = np.linalg.solve(features.T @ features + 3 * np.eye(48), features.T @ (10 * np.eye(10)[classes] - 1))
    right = np.flatnonzero((features @ out).argmax(axis=1) == classes)[:64]
    return pixels[right] / 16, classes[right], *(array.astype(np.float32).astype(float) for array in (hidden, shift, out))


DIGITS = digits()
UNIT = {"linf": (2 * UNIFORM - 1) / np.abs(2 * UNIFORM - 1).max(axis=1, keepdims=True)}
UNIT |= {"l2": NORMAL / np.linalg.norm(NORMAL, axis=1, keepdims=True), "l1": NORMAL}


def against_the_record(name, call, dtype=float, monkeypatch=None, **settings):
    recorded, norm = RECORDED[name], name.split("_")[0]
    with jax.enable_x64(dtype is float):
        images, hidden, shift, out = (jnp.asarray(DIGITS[i], dtype) for i in (0, 2, 3, 4))
        labels = jnp.asarray(DIGITS[1], jnp.int32)

        def logits_fn(images):
            return jnp.tanh((images - 0.3) @ hidden + shift[None]) @ out

        unit = UNIT[norm][:1] if call is apgd_targeted else UNIT[norm]
        start = images + jnp.asarray(unit * (1 if norm == "l1" else recorded["epsilon"]), dtype)
        if monkeypatch:  # as if drawn: from a given start an L1 run is sparser
            monkeypatch.setattr(module, "_random_start", lambda *arguments: start)
        else:
            settings["start"] = start if norm == "l1" else jnp.clip(start, 0, 1)
        keys = jax.random.split(jax.random.key(0), 64)
        run = jax.jit(lambda: call(logits_fn, keys, images, labels, epsilon=recorded["epsilon"], norm=norm, **settings))
        result = jax.tree.map(np.asarray, run())
    expected = np.array([int(digit) for digit in recorded["found"]], bool)
    assert 0.5 < expected.mean() < 0.75
    return result, expected, np.array(recorded.get("loss", []))


def test_linf_is_the_public_one_in_single_precision():
    result, found, loss = against_the_record("linf_ce", apgd, np.float32)
    np.testing.assert_array_equal(result.found, found)
    np.testing.assert_allclose(result.loss[RECORDED["steps"], :12], loss, rtol=1e-3, atol=1e-4)


LARGE = {"large_epsilon_schedule": True}


@pytest.mark.parametrize("name, settings", [("linf_dlr", {"objective": dlr}), ("l2_ce", {}), ("l1_ce_large", LARGE)])
def test_every_step_is_the_public_one(name, settings):
    """In double precision, for in single a rounding sends a few examples along another path in the end."""
    result, found, loss = against_the_record(name, apgd, **settings)
    np.testing.assert_array_equal(result.found, found)
    # At the first checkpoint torchattacks compares the first step's loss with 0, not with the start's: that tells in DLR.
    alike = np.array(RECORDED["steps"]) < (22 if name == "linf_dlr" else 100)
    np.testing.assert_allclose(result.loss[RECORDED["steps"], :12][alike], loss[alike], rtol=1e-4, atol=1e-5)


def test_l1_from_a_random_start_is_the_public_one(monkeypatch):
    result, found, loss = against_the_record("l1_ce", apgd, monkeypatch=monkeypatch)
    np.testing.assert_array_equal(result.found, found)
    np.testing.assert_allclose(result.loss[RECORDED["steps"], :12], loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_targeted_attack_is_the_public_one(norm):
    result, found, _ = against_the_record(f"{norm}_targeted", apgd_targeted, num_steps=50)
    np.testing.assert_array_equal(result.found, found)
