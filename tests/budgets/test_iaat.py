"""IAAT where margins are known: up, stay, down, and the warm-up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told import told

from bap_jax import budgets
from bap_jax.errors import SettingError

GAMMA, BETA = 0.01, 0.25


def make(line, warmup_steps=10):
    return budgets.iaat(line.attack, warmup_steps=warmup_steps, epsilon=0.03, epsilon_step=GAMMA, rate=BETA)


def test_the_warm_up_gives_all_that_are_classified_correctly_the_same(line):
    budget = make(line)
    adversarial, state = line.perturb(budget, budget.init(told(6))._replace(epsilons=line.table([1.0, 1.0, 1.0, 1.0])), step=9)
    np.testing.assert_allclose(adversarial.epsilon, [0.03, 0.03, 0.03, 0.0])
    np.testing.assert_allclose(state.epsilons, line.table([0.03, 0.03, 0.03, 0.0]))
    np.testing.assert_allclose(adversarial.images[:, 0], line.batch().images[:, 0] - adversarial.epsilon)


@pytest.mark.parametrize(
    ("before", "moves"),
    [
        ([0.005, 0.03, 0.1, 0.0], [1, 1, 1, 0]),  # robust at epsilon + gamma: up
        ([0.015, 0.045, 0.195, 0.0], [0, 0, 0, 0]),  # robust at epsilon alone: stay
        ([0.03, 0.06, 0.3, 0.0], [-1, -1, -1, 0]),  # at neither: down
    ],
)
def test_budgets_move_by_beta_gamma(before, moves, line):
    budget = make(line, warmup_steps=0)
    adversarial, state = line.perturb(budget, budget.init(told(6))._replace(epsilons=line.table(before)))
    expected = np.array(before) + BETA * GAMMA * np.array(moves)
    np.testing.assert_allclose(adversarial.epsilon, expected, rtol=1e-5)
    np.testing.assert_allclose(line.of(state.epsilons), expected, rtol=1e-5)


def test_a_misclassified_example_s_budget_decays_and_none_falls_below_zero(line):
    budget = make(line, warmup_steps=0)
    state = budget.init(told(6))._replace(epsilons=line.table([0.0, 0.0, 0.0, 0.08]))
    adversarial, _ = line.perturb(budget, state)
    assert float(adversarial.epsilon[3]) == pytest.approx((1 - BETA) * 0.08)
    thin = line.batch()._replace(images=jnp.full((4, 1), 0.5 + 0.001))  # not robust at 0.002
    adversarial, _ = line.perturb(budget, budget.init(told(6))._replace(epsilons=line.table([0.002] * 4)), given=thin)
    np.testing.assert_allclose(adversarial.epsilon, (1 - BETA) * 0.002, rtol=1e-5)  # chosen: 0, not 0.002 - gamma


def test_budgets_settle_at_the_margins(line):
    budget, seen = make(line, warmup_steps=0), []
    state, go = budget.init(told(6)), jax.jit(lambda state: line.perturb(budget, state))
    for _ in range(150):
        _, state = go(state)
        seen.append(line.of(state.epsilons))
    last = np.stack(seen[-20:])
    assert np.all(np.abs(last[:, :3] - np.array(line.margins[:3])) <= GAMMA + 1e-6) and np.all(last[:, 3] == 0)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"warmup_steps": -1}, "warmup_steps = -1"),
        ({"epsilon": -0.1}, "epsilon = -0.1"),
        ({"epsilon_step": 0.0}, "epsilon_step = 0.0"),
        ({"rate": 0.0}, "rate = 0.0"),
        ({"rate": 1.5}, "rate = 1.5"),
    ],
)
def test_refusals(settings, name, line):
    with pytest.raises(SettingError, match=name):
        budgets.iaat(line.attack, **{"warmup_steps": 1, **settings})
