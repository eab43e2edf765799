"""CAT where margins are known: increments, cap and labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told import told

from bap_jax import budgets
from bap_jax.errors import SettingError
from bap_jax.types import Batch

ETA, CAP, FACTOR = 0.0099, 0.07, 10.0


def make(line, **settings):
    return budgets.cat(line.attack, **{"epsilon_step": ETA, "epsilon_max": CAP, "label_factor": FACTOR, **settings})


def test_budgets_grow_by_eta_until_the_network_fails_or_the_cap(line):
    budget = make(line)
    state, go = budget.init(told(6)), jax.jit(lambda state: line.perturb(budget, state))
    for number in range(1, 13):
        adversarial, after = go(state)
        before = line.of(state.epsilons)
        np.testing.assert_allclose(adversarial.epsilon, before + ETA, rtol=1e-6)  # the attack is at the raised budget
        np.testing.assert_allclose(adversarial.images[:, 0], line.batch().images[:, 0] - adversarial.epsilon, rtol=1e-6)
        full = [min(number, steps) * ETA for steps in (2, 5, 99, 0)]  # margins 0.02, 0.05, 0.2, misclassified
        np.testing.assert_allclose(line.of(after.epsilons), np.minimum(full, CAP), rtol=1e-5)
        state = after
    assert float(state.epsilons[1]) == 0.0  # an example that was not in the batch


def test_an_example_that_fails_at_the_cap_stays_there(line):
    budget = make(line)
    barely = line.batch()._replace(images=jnp.full((4, 1), 0.5 + CAP + 0.001))  # robust at the cap, not at the cap + eta
    _, state = line.perturb(budget, budget.init(told(6))._replace(epsilons=line.table([CAP] * 4)), given=barely)
    np.testing.assert_allclose(line.of(state.epsilons), CAP)


def test_targets_are_softened_by_c_epsilon_with_a_draw_from_the_dirichlet_distribution(line):
    num, budget = 4000, make(line)
    given = Batch(jnp.full((num, 1), 0.9), jnp.zeros(num, jnp.int32), jnp.arange(num), jnp.ones(num))
    state = budget.init(told(num))._replace(epsilons=jnp.full(num, 0.03))
    adversarial, _ = jax.jit(lambda given, state: line.perturb(budget, state, given=given))(given, state)
    soft = FACTOR * (0.03 + ETA)
    drawn = (adversarial.targets - (1 - soft) * jnp.array([[1.0, 0.0]])) / soft
    np.testing.assert_allclose(jnp.sum(adversarial.targets, axis=1), 1.0, rtol=1e-5)
    assert float(drawn.min()) >= -1e-6
    # two classes: Dirichlet(1, 1) is uniform on [0, 1]
    share = np.sort(np.asarray(drawn[:, 0]))
    assert np.max(np.abs(share - (np.arange(num) + 0.5) / num)) < 0.03  # Kolmogorov-Smirnov, p < 0.002


def test_before_any_budget_targets_are_one_hot_where_the_network_fails(line):
    adversarial, _ = line.perturb(make(line), make(line).init(told(6)))
    np.testing.assert_array_equal(adversarial.targets[3], [1.0, 0.0])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"epsilon_step": 0.0}, "epsilon_step = 0.0"),
        ({"epsilon_max": float("inf")}, "epsilon_max = inf"),
        ({"epsilon_max": 0.3}, r"label_factor = 10.0: expected a number in \[0, 1 / epsilon_max = 3.33333\]"),
        ({"label_factor": -1.0}, "label_factor = -1.0"),
    ],
)
def test_refusals(settings, name, line):
    with pytest.raises(SettingError, match=name):
        make(line, **settings)
