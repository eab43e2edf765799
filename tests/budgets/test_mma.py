"""MMA against the margins of a linear network, which are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told import told

from bap_jax import budgets
from bap_jax.attacks import pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import dual_norm, per_example_norm
from bap_jax.mathematics.objectives import soft_margin_loss
from bap_jax.types import Batch, Bounds

B = 5
KEYS = jax.random.split(jax.random.key(0), B)
WEIGHTS = jnp.array([0.9, -0.4, 0.2, 0.7, -1.1, 0.3])
OFFSETS = jnp.array([0.05, 0.1, 0.2, 0.35, -0.1])  # distances to the plane in L-infinity; the last is on the wrong side


def linear(x):
    """Two classes, so that the soft margin is the margin: class 0 above the plane through the middle of the box."""
    score = (x - 0.5) @ WEIGHTS
    return jnp.stack([score, -score], axis=-1)


def batch(norm="linf"):
    length = per_example_norm(WEIGHTS[None], dual_norm(norm))[0]
    towards = jnp.sign(WEIGHTS) if norm == "linf" else WEIGHTS / length
    images = 0.5 + OFFSETS[:, None] * towards[None]
    return Batch(images, jnp.zeros(B, jnp.int32), jnp.array([7, 3, 0, 9, 4]), jnp.ones(B))


def attack(norm="linf", **options):
    return partial(pgd, norm=norm, num_steps=10, objective=soft_margin_loss, **options)


def perturb(budget, state, given):
    go = lambda given, state: budget.perturb(KEYS, linear, given, state, step=jnp.int32(0), gather=lambda x: x)  # noqa: E731
    return jax.jit(go)(given, state)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_epsilon_is_the_margin_up_to_the_last_halving(norm):
    budget = budgets.mma(attack(norm, random_start=False), epsilon_min=0.01, epsilon_max=0.3, num_bisections=16)
    given = batch(norm)
    adversarial, state = perturb(budget, budget.init(told(10)), given)
    reach = 1.05 * 0.3
    np.testing.assert_allclose(adversarial.epsilon, [0.05, 0.1, 0.2, reach, 0.0], atol=2e-4)
    np.testing.assert_allclose(adversarial.weight, [1, 1, 1, 0, 1])  # beyond d_max: wide enough
    score = (adversarial.images - 0.5) @ WEIGHTS
    np.testing.assert_allclose(score[:3], 0.0, atol=1e-3)  # on the plane
    np.testing.assert_array_equal(adversarial.images[4], given.images[4])
    np.testing.assert_allclose(per_example_norm(adversarial.images - given.images, norm)[:3], OFFSETS[:3], atol=2e-4)
    expected = np.zeros(10)
    expected[[7, 3, 0, 9]] = adversarial.epsilon[:4]
    np.testing.assert_array_equal(state.epsilons, expected.astype(np.float32))


def test_the_search_begins_at_the_stored_margin_and_at_epsilon_min_at_least(line):
    """As published: the first point that one halving looks at is the attack's own end, not the middle of the interval."""
    budget = budgets.mma(line.attack, epsilon_min=0.08, epsilon_max=0.3, num_bisections=1)
    state = budget.init(told(6))._replace(epsilons=line.table([0.0, 0.15, 0.12, 0.0]))
    adversarial, state = line.perturb(budget, state)
    expected = [
        0.08 / 2,
        0.15 / 2,
        (0.12 + 1.05 * 0.3) / 2,
        0.0,
    ]  # wrong at 0.08 and 0.15 (margins 0.02, 0.05), not at 0.12 (0.2)
    np.testing.assert_allclose(adversarial.epsilon, expected, rtol=1e-5)
    np.testing.assert_allclose(line.of(state.epsilons), expected, rtol=1e-5)


def test_margins_are_found_again_from_epoch_to_epoch(line):
    budget = budgets.mma(line.attack, epsilon_min=0.01, epsilon_max=0.1, num_bisections=14)
    state = budget.init(told(6))
    for shift in (0.0, 0.01, -0.015):
        given = line.batch()
        adversarial, state = line.perturb(budget, state, given=given._replace(images=given.images + shift))
        expected = np.array(line.margins) + shift
        expected = np.where(expected < 0, 0, np.minimum(expected, 0.105))
        np.testing.assert_allclose(line.of(state.epsilons), expected, atol=1e-4)
        assert adversarial.weight.tolist() == [1.0, 1.0, 0.0, 1.0]


def test_the_example_stays_in_the_box(line):
    """A box that ends before the network's edge: nothing is found, and the example of the full radius is clipped."""
    budget = budgets.mma(line.attack, epsilon_max=0.3, bounds=Bounds(0.505, 1.0))
    adversarial, _ = line.perturb(budget, budget.init(told(6)))
    np.testing.assert_allclose(adversarial.images[:3, 0], 0.505)
    np.testing.assert_allclose(adversarial.epsilon[:3], 1.05 * 0.3, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"epsilon_min": 0.0}, "epsilon_min = 0.0"),
        ({"epsilon_max": float("nan")}, "epsilon_max = nan"),
        ({"epsilon_min": 0.5, "epsilon_max": 0.3}, "epsilon_min = 0.5: expected at most epsilon_max = 0.3"),
        ({"num_bisections": 0}, "num_bisections = 0"),
    ],
)
def test_refusals(settings, name):
    with pytest.raises(SettingError, match=name):
        budgets.mma(attack(), **settings)
