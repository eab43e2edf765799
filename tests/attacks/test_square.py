"""Square against a public implementation and analytic distances; its windows, bumps and schedule against slow, plain forms.

Recorded (square.json) from torchattacks 3.5.1, torch 2.13, with the network below in torch (channels first, one permute), y its
predictions, for seed in range(10): Square(net, norm="Linf", eps=.05, n_queries=300, seed=seed, resc_schedule=False), then
torch.manual_seed(seed) and .attack_single_run(x, y); "l2": norm="L2", eps=.5; "…_rescaled": resc_schedule=True, its default.
A row is the share of examples that are misclassified within 1, 5, 20, 50, 100 and 301 queries.
"""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.square import _bumps, _eta, _sides, queries_used, square
from bap_jax.errors import SettingError
from bap_jax.mathematics import margin_loss, misclassified, per_example_norm
from bap_jax.types import AttackResult, Bounds

RECORDED = json.loads((pathlib.Path(__file__).parent / "square.json").read_text())
QUERIES = (1, 5, 20, 50, 100, 301)
_random = np.random.RandomState(12)
PROTOTYPES = (_random.rand(6, 300) > 0.5).astype(np.float32)
IMAGES = np.clip(0.2 + 0.6 * PROTOTYPES[np.arange(100) % 6] + 0.5 * _random.randn(100, 300), 0, 1)
IMAGES = jnp.asarray(IMAGES.reshape(100, 10, 10, 3), jnp.float32)
HIDDEN = jnp.asarray((_random.randn(300, 24) / 4).astype(np.float32))
OUT = jnp.tanh((PROTOTYPES - 0.5) @ HIDDEN).T
LABELS = jnp.asarray(RECORDED["labels"])
KEYS = jax.random.split(jax.random.key(0), 100)
EPSILON = {"linf": 0.05, "l2": 0.5, "l1": 4.0}


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ HIDDEN) @ OUT


STATIC = ("logits_fn", "norm", "bounds", "num_queries", "restarts", "targeted", "rescale_schedule")
attack = jax.jit(square, static_argnames=STATIC)


@pytest.mark.parametrize("name", ["linf", "l2", "linf_rescaled"])
def test_successes_and_queries_are_those_of_the_public_implementation(name):
    """Within three of its standard deviations over seeds."""
    norm, theirs = name.partition("_")[0], np.array(RECORDED[name])
    settings = {"norm": norm, "num_queries": 300, "rescale_schedule": "rescaled" in name}
    images, labels, keys = jnp.tile(IMAGES, (5, 1, 1, 1)), jnp.tile(LABELS, 5), jax.random.split(jax.random.key(1), 500)
    result = attack(network, keys, images, labels, epsilon=EPSILON[norm], **settings)
    used = np.where(result.found, queries_used(result), np.inf)
    ours = np.array([np.mean(used <= limit) for limit in QUERIES])
    spread = np.maximum(theirs.std(axis=0), 0.01)
    assert np.all(np.abs(ours - theirs.mean(axis=0)) <= 3 * spread), (ours, theirs.mean(axis=0))
    other = np.array(RECORDED[norm if "rescaled" in name else name + "_rescaled"]).mean(axis=0)
    assert np.any(np.abs(ours - other) > 3 * spread)  # the schedule does matter: this test can fail
    np.testing.assert_array_equal(misclassified(network(result.images), labels), result.found)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_points_stay_in_ball_and_box_and_the_loss_never_falls(norm):
    epsilon = EPSILON[norm] * jnp.linspace(0.0, 2.0, 100)
    result = attack(network, KEYS, IMAGES, LABELS, epsilon=epsilon, norm=norm, num_queries=60)
    assert jnp.all(per_example_norm(result.images - IMAGES, norm) <= epsilon * (1 + 1e-5) + 1e-6)
    assert jnp.all((result.images >= 0) & (result.images <= 1))
    assert result.loss.shape == (60, 100)
    assert jnp.all(jnp.diff(result.loss, axis=0) >= 0) and jnp.any(result.loss[-1] > result.loss[0])
    assert jnp.all(margin_loss(network(result.images), LABELS) >= result.loss[-1] - 1e-3)
    np.testing.assert_array_equal(misclassified(network(result.images), LABELS), result.found)
    np.testing.assert_array_equal(result.images[0], IMAGES[0])  # ε = 0 is exact
    assert jnp.mean(result.found[50:]) > jnp.mean(result.found[:50])


def brightness(images):
    """Brighter or darker than a threshold: the L∞ distance is |mean − ½|, and all pixels have to go the same way."""
    mean = images.reshape(len(images), -1).mean(axis=1)[:, None]
    return jnp.concatenate([0.5 - mean, mean - 0.5], axis=1)


def test_a_linear_network_falls_beyond_its_margin_and_not_before():
    images, labels, keys = jnp.full((4, 4, 4, 1), 0.4), jnp.zeros(4, jnp.int32), KEYS[:4]
    factors = jnp.asarray([1.01, 0.99, 1.1, 0.9]) * 0.1

    def whole(images):  # a window of side 3 never covers the last row and column: the network looks at the others only
        return brightness(images[:, :3, :3])

    result = attack(whole, keys, images, labels, epsilon=factors, num_queries=600)
    np.testing.assert_array_equal(result.found, [True, False, True, False])


def test_no_gradient_is_ever_taken_and_none_flows_through_the_result():
    @jax.custom_vjp
    def barbed(images):
        return network(images)

    def explode(_, __):
        raise AssertionError("a gradient was taken")

    barbed.defvjp(lambda images: (barbed(images), None), explode)
    plain = attack(network, KEYS, IMAGES, LABELS, epsilon=jnp.full(100, 0.05), num_queries=60, norm="linf")
    result = attack(barbed, KEYS, IMAGES, LABELS, epsilon=jnp.full(100, 0.05), num_queries=60, norm="linf")
    np.testing.assert_allclose(result.images, plain.images, atol=1e-6)
    text = str(
        jax.make_jaxpr(lambda x: square(lambda i: jnp.sin(network(i)), KEYS, x, LABELS, epsilon=0.05, num_queries=3))(IMAGES)
    )
    assert " sin " in text and " cos " not in text


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_rows_do_not_influence_each_other(norm):
    """Other neighbours, also ones that are found at once; other places in the batch."""
    epsilon = EPSILON[norm] * jnp.linspace(0.0, 2.0, 100)
    settings = {"norm": norm, "num_queries": 60}
    whole = attack(network, KEYS, IMAGES, LABELS, epsilon=epsilon, **settings)
    labels = LABELS.at[5:].set((LABELS[5:] + 1) % 6)
    padded = attack(network, KEYS, IMAGES.at[5:].set(0), labels, epsilon=epsilon, **settings)
    np.testing.assert_allclose(padded.images[:5], whole.images[:5], atol=1e-5)
    turned = attack(network, KEYS[::-1], IMAGES[::-1], LABELS[::-1], epsilon=epsilon[::-1], **settings)
    same = jnp.max(jnp.abs(turned.images[::-1] - whole.images).reshape(100, -1), axis=1) < 1e-4
    assert jnp.mean(same) >= 0.97  # sums in another order may decide a tie


def test_targeted_wrong_already_and_restarts():
    targets = (LABELS + 1) % 6
    result = attack(network, KEYS, IMAGES, targets, epsilon=0.2, norm="linf", num_queries=60, targeted=True)
    np.testing.assert_array_equal(jnp.argmax(network(result.images), axis=1) == targets, result.found)
    assert jnp.sum(result.found) > 5 and not jnp.all(result.found)
    assert jnp.all((result.loss[-1] > 0) <= result.found)
    wrong = attack(network, KEYS, IMAGES, targets, epsilon=jnp.full(100, 0.05), norm="linf", num_queries=60)
    np.testing.assert_array_equal(wrong.images, IMAGES)
    assert jnp.all(wrong.found) and jnp.all(queries_used(wrong) == 1)


def test_restarts_are_runs_of_other_numbers_and_never_harm():
    settings = {"epsilon": 0.05, "norm": "linf", "num_queries": 60}
    first, second = (attack(network, KEYS, IMAGES, LABELS, first_restart=jnp.int32(r), **settings) for r in range(2))
    both = attack(network, KEYS, IMAGES, LABELS, first_restart=jnp.int32(0), restarts=2, **settings)
    np.testing.assert_array_equal(both.found, first.found | second.found)
    assert jnp.sum(both.found) > max(jnp.sum(first.found), jnp.sum(second.found))
    np.testing.assert_array_equal(both.images[first.found], first.images[first.found])
    left = ~both.found
    np.testing.assert_allclose(both.loss[-1][left], jnp.maximum(first.loss[-1], second.loss[-1])[left], atol=0.2)


def test_vectors_and_pictures_of_one_channel():
    vectors = IMAGES.reshape(100, 300)
    result = attack(network, KEYS, vectors, LABELS, epsilon=0.1, norm="linf", num_queries=60)
    assert result.images.shape == vectors.shape and jnp.sum(result.found) > 5
    flat = IMAGES[..., 0]
    bounds = Bounds(jnp.full((10, 10), -1.0), 2.0)

    def grey(images):
        return network(jnp.repeat(images.reshape(len(images), -1), 3, axis=1))

    run = jax.jit(lambda: square(grey, KEYS, flat, LABELS, epsilon=0.1, norm="l2", num_queries=2, bounds=bounds))
    result = run()
    assert result.images.shape == flat.shape
    assert jnp.all(per_example_norm(result.images - flat, "l2") <= 0.1 * (1 + 1e-5))


def plain_bump(rows, columns, power, order):
    """As in the fine print: add 1/(j + 1)^power on squares, cut off at the edges."""
    values = np.zeros((rows, columns))
    for j in range(max(rows // 2, columns // 2) + 1):
        above, left = rows // 2 - j, columns // 2 - j
        values[
            max(above, 0) : max(above, 0) + max(rows // 2 + j + 1 - max(above, 0), 0), max(left, 0) : columns // 2 + j + 1
        ] += 1 / (j + 1) ** power
    return values / np.sum(np.abs(values) ** order) ** (1 / order)


@pytest.mark.parametrize("order, power", [(2, 2), (1, 4)])
def test_bumps_written_out(order, power):
    for side in (2, 3, 5, 9, 25):
        halves = [plain_bump(side // 2, side, power, order), -plain_bump(side - side // 2, side, power, order)]
        expected = np.concatenate(halves)
        expected /= np.sum(np.abs(expected) ** order) ** (1 / order)
        np.testing.assert_allclose(_eta(side, order), expected, atol=1e-12)


def test_a_proposal_from_nothing_puts_one_bump_of_the_right_norm():
    """From δ = 0 the first window gets ±η and nothing else, in every channel, upright or lying, at some corner."""
    images = jnp.full((40, 12, 11, 2), 0.5)
    sides = _sides(12, 11, 0.3, "l2")
    propose, _ = _bumps(images, 0.4, Bounds(jnp.float32(0.0), jnp.float32(1.0)), "l2", sides)
    propose = jax.jit(propose)
    for number in (0, len(sides) - 1):
        side = sides[number]
        delta = np.asarray(propose(KEYS[:40], images, jnp.int32(number), jnp.int32(side)) - images)
        np.testing.assert_allclose(np.sqrt((delta**2).sum(axis=(1, 2, 3))), 0.4, rtol=1e-5)
        corners, turns = set(), set()
        for picture in delta.transpose(0, 3, 1, 2).reshape(-1, 12, 11):
            rows, columns = (np.nonzero(np.any(picture != 0, axis=axis))[0] for axis in (1, 0))
            assert len(rows) == len(columns) == side
            window = picture[rows[0] : rows[0] + side, columns[0] : columns[0] + side] / 0.4 * math.sqrt(2)
            forms = [turned * sign for turned in (_eta(side, 2), _eta(side, 2).T) for sign in (1, -1)]
            errors = [np.abs(window - form).max() for form in forms]
            assert min(errors) < 1e-5
            turns.add(int(np.argmin(errors)))
            corners.add((rows[0], columns[0]))
        assert turns == {0, 1, 2, 3} and len(corners) > 5


def test_sides_follow_the_schedule():
    shares = [0.8 / 2**halvings for halvings in range(10)]
    assert _sides(28, 28, 0.8, "linf") == tuple(max(round(math.sqrt(share * 784)), 1) for share in shares)
    assert _sides(32, 32, 0.8, "l2") == (29, 21, 15, 11, 7, 5, 5, 3, 3, 3)
    assert max(_sides(4, 32, 0.8, "l1")) == 3 and max(_sides(4, 32, 0.8, "linf")) == 4
    assert _sides(1, 100, 0.8, "linf")[:3] == (80, 40, 20)


def test_queries_are_counted_from_the_start():
    losses = jnp.asarray([[0.5, -1.0, -1.0], [0.5, -0.5, -1.0]])
    found = jnp.asarray([True, True, False])
    np.testing.assert_array_equal(queries_used(AttackResult(jnp.zeros((3, 1)), found, losses)), [1, 3, 3])


@pytest.mark.parametrize("change", [
    {"norm": "l0"}, {"num_queries": 0}, {"restarts": 0}, {"first_restart": -1}, {"initial_fraction": 0.0}, {"epsilon": -0.1},
])  # fmt: skip
def test_what_cannot_be_is_refused(change):
    with pytest.raises(SettingError) as error:
        square(network, KEYS, IMAGES, LABELS, **{"epsilon": 0.1, **change})
    assert error.value.name == next(iter(change))


def test_vectors_have_no_bumps_and_keys_are_needed():
    with pytest.raises(SettingError, match="images"):
        square(network, KEYS, IMAGES.reshape(100, 300), LABELS, epsilon=0.1, norm="l2")
    with pytest.raises(SettingError, match="keys"):
        square(network, None, IMAGES, LABELS, epsilon=0.1)
