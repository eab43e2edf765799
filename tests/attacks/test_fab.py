"""FAB against the analytic distances of linear networks and against public implementations, on a small network of fixed weights.

Recorded (fab.json) with the network below in torch (channels first, one permute), x in [0, 1], y its predictions:
  torchattacks 3.5.1, torch 2.13: FAB(net, norm=N, steps=5).attack_single_run(x, y) -> "untargeted"
    FAB(net, norm=N, steps=5, multi_targeted=True), target_class = 2, 3: .attack_single_run_targeted(x, y) -> "second", "third"
  adv-lib 0.2.8: fab(net, x, y, norm=p, n_iter=20, targeted_restarts=True) -> "targeted"
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.fab import fab, fab_targeted
from bap_jax.errors import SettingError
from bap_jax.mathematics import dual_norm, margin_loss, misclassified, per_example_norm
from bap_jax.types import Bounds

NORMS = ["linf", "l2", "l1"]
FREE = Bounds(-float("inf"), float("inf"))
RECORDED = json.loads((pathlib.Path(__file__).parent / "fab.json").read_text())
_random = np.random.RandomState(11)
PROTOTYPES = (_random.rand(6, 192) > 0.5).astype(np.float32)
IMAGES = np.clip(0.2 + 0.6 * PROTOTYPES[np.arange(60) % 6] + 0.5 * _random.randn(60, 192), 0, 1)
IMAGES = jnp.asarray(IMAGES.reshape(60, 8, 8, 3), jnp.float32)
HIDDEN = jnp.asarray(_random.randn(192, 24) / 4, jnp.float32)
OUT = jnp.tanh((PROTOTYPES - 0.5) @ HIDDEN).T
LABELS = jnp.asarray(RECORDED["labels"])
WEIGHTS = jnp.asarray(_random.randn(192, 6), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 60)


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ HIDDEN) @ OUT


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS


STATIC = ("logits_fn", "norm", "bounds", "num_steps", "restarts")
attack = jax.jit(fab, static_argnames=STATIC)
attack_targeted = jax.jit(fab_targeted, static_argnames=(*STATIC, "num_targets"))


def distances(result, norm, images=IMAGES):
    return np.asarray(per_example_norm(result.images - images, norm))


def check_points(result, norm, bounds=Bounds()):
    """The network agrees with ``found``; the points are in the box; what was not found is the image itself."""
    np.testing.assert_array_equal(misclassified(network(result.images), LABELS), result.found)
    assert jnp.all((result.images >= bounds.lower) & (result.images <= bounds.upper))
    np.testing.assert_array_equal(distances(result, norm)[~np.asarray(result.found)], 0)


@pytest.mark.parametrize("norm", NORMS)
def test_distances_are_those_of_the_public_implementations(norm):
    """Recorded early, while the points still move, and late."""
    assert len(set(RECORDED["labels"])) == 6
    early, late = RECORDED["torchattacks"][norm], RECORDED["adv-lib"][norm]
    results = {
        "untargeted": (attack(network, None, IMAGES, LABELS, norm=norm, num_steps=5), early["untargeted"]),
        "targets": (attack_targeted(network, None, IMAGES, LABELS, norm=norm, num_steps=20), late["targeted"]),
    }
    for rank, name in ((1, "second"), (2, "third")):
        target = {"num_targets": 1, "first_target": jnp.int32(rank)}
        results[name] = (attack_targeted(network, None, IMAGES, LABELS, norm=norm, num_steps=5, **target), early[name])
    ratios = []
    for result, expected in results.values():
        check_points(result, norm)
        np.testing.assert_array_equal(result.found, np.asarray(expected) > 0)
        ratios.append(distances(result, norm) / np.asarray(expected))
    assert np.mean(np.abs(np.stack(ratios) - 1) < 0.01) >= 0.99
    assert np.mean(np.asarray(early["untargeted"]) / np.asarray(late["targeted"])) > 1.01  # early is early


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_network_it_finds_the_distance(norm):
    labels = jnp.argmax(linear(IMAGES), axis=1)
    normals = WEIGHTS.T[None] - WEIGHTS.T[labels][:, None]  # [B, K, D]
    sizes = jax.vmap(lambda rows: per_example_norm(rows, dual_norm(norm)))(normals)
    lead = jnp.max(linear(IMAGES), axis=1, keepdims=True) - linear(IMAGES)
    nearest = np.asarray(jnp.min(jnp.where(sizes > 0, lead / sizes, jnp.inf), axis=1))
    for run in (attack, attack_targeted) if norm == "linf" else (attack,):
        result = run(linear, None, IMAGES, labels, norm=norm, num_steps=30, bounds=FREE)
        assert jnp.all(result.found)
        rounding = 192 * np.finfo(np.float32).eps if norm == "l1" else 1e-6  # a sum over the features
        np.testing.assert_allclose(distances(result, norm), nearest, rtol=0.01, atol=rounding)
        assert np.all(distances(result, norm) >= nearest * (1 - 1e-4) - 1e-6)


def test_wrong_already_stays_and_a_target_is_where_it_is_said_to_be():
    wrong = (LABELS + 1) % 6
    result = attack(network, None, IMAGES, wrong, norm="l2", num_steps=5)
    np.testing.assert_array_equal(result.images, IMAGES)
    assert jnp.all(result.found)
    ranked = jnp.argsort(-network(IMAGES), axis=1)
    settings = {"norm": "l2", "num_steps": 5, "num_targets": 1}
    third = attack_targeted(network, None, IMAGES, LABELS, first_target=jnp.int32(2), **settings)
    assert jnp.mean(jnp.argmax(network(third.images), axis=1) == ranked[:, 2]) > 0.6  # others are met on the way to it


def test_several_targets_and_restarts_keep_the_nearest_and_can_be_done_one_by_one():
    settings = {"norm": "linf", "num_steps": 5, "epsilon": jnp.full(60, 0.05)}
    together = attack_targeted(network, KEYS, IMAGES, LABELS, num_targets=2, restarts=2, **settings)
    single = []
    for restart in range(2):
        for rank in (1, 2):
            number = {"first_restart": jnp.int32(restart), "first_target": jnp.int32(rank)}
            single.append(attack_targeted(network, KEYS, IMAGES, LABELS, num_targets=1, **number, **settings))
    each = np.stack([np.where(one.found, distances(one, "linf"), np.inf) for one in single])
    np.testing.assert_allclose(distances(together, "linf"), each.min(axis=0), rtol=1e-4)
    assert set(each.argmin(axis=0)) == {0, 1} and np.any(each[2:] != each[:2])  # both targets matter; restarts go their own way
    best = each.argmin(axis=0)
    losses = np.stack([np.asarray(one.loss) for one in single])
    agree = np.isclose(np.asarray(together.loss), losses[best, :, np.arange(60)].T, atol=1e-4).all(axis=0)
    assert agree.mean() > 0.95  # the losses are the nearest run's; runs that tie may change places
    check_points(together, "linf")


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_begin_half_an_epsilon_away(norm):
    """Of the points that the network is asked about, one is at the said distance in every row; for restart 0 none is."""
    epsilon = {"linf": 0.02, "l2": 0.2, "l1": 2.0}[norm]
    inner = jnp.clip(IMAGES[:4], 0.2, 0.8)
    seen = []

    def watched(images):
        jax.debug.callback(lambda values: seen.append(per_example_norm(values - inner, norm)), images)
        return network(images)

    @jax.jit
    def run(restart):
        settings = {"norm": norm, "num_steps": 1, "epsilon": jnp.full(4, epsilon), "num_targets": 1}
        return fab_targeted(watched, KEYS[:4], inner, LABELS[:4], first_restart=restart, **settings)

    for restart in (0, 1):
        seen.clear()
        jax.block_until_ready(run(restart))
        jax.effects_barrier()
        assert len(seen) == 3  # the image, the start, the step's point
        assert any(np.allclose(distance, epsilon / 2, rtol=1e-4) for distance in seen) == (restart > 0)


def test_restarts_never_harm_and_epsilon_zero_repeats_the_first():
    settings = {"norm": "linf", "num_steps": 5, "restarts": 2}
    one = attack(network, None, IMAGES, LABELS, norm="linf", num_steps=5)
    many = attack(network, KEYS, IMAGES, LABELS, epsilon=jnp.full(60, 0.8), **settings)
    same = attack(network, KEYS, IMAGES, LABELS, epsilon=jnp.zeros(60), **settings)
    assert np.all(distances(many, "linf") <= distances(one, "linf") * (1 + 1e-3))
    np.testing.assert_allclose(distances(same, "linf"), distances(one, "linf"), rtol=1e-3)


def test_rows_do_not_influence_each_other():
    """Other neighbours and other places in the batch: the same answer."""
    settings = {"norm": "linf", "num_steps": 5, "restarts": 2}
    epsilon = jnp.linspace(0.0, 0.1, 60)
    whole = attack(network, KEYS, IMAGES, LABELS, epsilon=epsilon, **settings)
    padded = attack(network, KEYS, IMAGES.at[3:].set(0), LABELS.at[3:].set(0), epsilon=epsilon, **settings)
    np.testing.assert_allclose(padded.images[:3], whole.images[:3], atol=1e-5)
    turned = attack(network, KEYS[::-1], IMAGES[::-1], LABELS[::-1], epsilon=epsilon[::-1], **settings)
    np.testing.assert_allclose(distances(turned, "linf", IMAGES[::-1])[::-1], distances(whole, "linf"), rtol=1e-3)


def test_another_box_is_the_same_problem_in_other_units():
    """Pixels 0 … 255 shifted by 100: 255 times the distance."""
    stretched = IMAGES * 255 - 100
    for norm in ("l2", "l1"):
        plain = attack(network, None, IMAGES, LABELS, norm=norm, num_steps=5)
        result = attack(in_bytes, None, stretched, LABELS, norm=norm, num_steps=5, bounds=Bounds(-100.0, 155.0))
        np.testing.assert_allclose(distances(result, norm, stretched) / 255, distances(plain, norm), rtol=2e-3)
        assert jnp.all((result.images >= -100) & (result.images <= 155))


def in_bytes(images):
    return network((images + 100) / 255)


def test_losses_are_the_margins_before_each_step():
    result = attack(network, None, IMAGES, LABELS, norm="linf", num_steps=5)
    assert result.loss.shape == (5, 60)
    np.testing.assert_allclose(result.loss[0], margin_loss(network(IMAGES), LABELS), atol=1e-4)
    assert jnp.all(jnp.abs(result.loss[-1]) < jnp.abs(result.loss[0]) + 1e-3)  # it stays at the boundary


def test_a_flat_network_gives_no_nan():
    for run in (fab, fab_targeted):
        result = run(lambda images: jnp.zeros((len(images), 3)), None, IMAGES[:4], LABELS[:4] * 0, num_steps=2)
        np.testing.assert_array_equal(result.images, IMAGES[:4])
        assert not jnp.any(result.found) and jnp.all(jnp.isfinite(result.loss))


@pytest.mark.parametrize("change", [
    {"norm": "rms"}, {"num_steps": 0}, {"restarts": 0}, {"first_restart": -1}, {"alpha_max": 1.5}, {"eta": 0.9}, {"beta": 0.0},
    {"epsilon": -1.0}, {"num_targets": 0}, {"first_target": 0}, {"first_target": 6},
])  # fmt: skip
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError) as error:
        fab_targeted(network, None, IMAGES, LABELS, **change)
    assert error.value.name == next(iter(change))


def test_random_starts_need_keys_and_epsilon():
    with pytest.raises(SettingError, match="keys"):
        fab(network, None, IMAGES, LABELS, restarts=2, epsilon=0.1)
    with pytest.raises(SettingError, match="epsilon"):
        fab(network, KEYS, IMAGES, LABELS, first_restart=1)
    with pytest.raises(SettingError, match="two classes"):
        fab(lambda images: images[:, 0, 0, :1], None, IMAGES, LABELS)
