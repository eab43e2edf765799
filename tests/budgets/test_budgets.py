"""One contract for all budgets, and what is particular to each."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from budget_cases import ATTACK, MARGIN, NEIGHBOURS, B, network, run
from told import told

from bap_jax import budgets
from bap_jax.attacks import pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.types import Batch, Bounds


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neither_padding_nor_other_rows_nor_what_is_stored_of_others_matters(name):
    _, batch = network()
    budget, keys, size = NEIGHBOURS[name], jax.random.split(jax.random.key(5), B), 40
    batch = batch._replace(index=jnp.array([4, 39, 0, 7, 11, 2, 30, 21]))
    state = budget.init(told(size))
    with_table = hasattr(state, "epsilons")
    if with_table:
        state = state._replace(epsilons=jnp.linspace(0.01, 0.2, size))
    together, after = run(budget, state, batch, keys)
    # the same rows in another order, padding among them; padding has the images of real rows and one past the last index
    order, padding = jnp.array([5, 1, 0, 7, 2, 6, 4, 3]), jnp.array([0, 3, 3])
    rows = jnp.concatenate([order[:4], padding, order[4:]])
    real = jnp.array([1.0] * 4 + [0.0] * 3 + [1.0] * 4)
    moved = Batch(*(x[rows] for x in batch))._replace(weight=real)
    moved = moved._replace(index=jnp.where(real > 0, moved.index, size))
    apart, after_apart = run(budget, state, moved, keys[rows])
    for mine, theirs in zip(apart, together, strict=True):
        np.testing.assert_allclose(mine[real > 0], theirs[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(apart.weight[real == 0], 0)
    if with_table:
        np.testing.assert_allclose(after_apart.epsilons, after.epsilons, rtol=1e-5, atol=1e-6)
        others = jnp.setdiff1d(jnp.arange(size), batch.index)
        np.testing.assert_array_equal(after.epsilons[others], state.epsilons[others])
        assert bool(jnp.any(after.epsilons[batch.index] != state.epsilons[batch.index]))


def test_none_moves_nothing():
    adversarial, _ = run(budgets.none())
    np.testing.assert_array_equal(adversarial.images, network()[1].images)
    assert float(adversarial.weight.sum()) == 0


def test_blind_without_a_cutoff_gives_nothing_to_the_misclassified_and_little_to_the_fragile():
    adversarial, _state = run(budgets.cutoff_scale(MARGIN, ATTACK, cutoff=budgets.Cutoff("off"), scale=1.0, epsilon_max=1.0))
    logits_fn, batch = network()
    assert adversarial.epsilon[:2].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(adversarial.images[:2], batch.images[:2])
    delta, found, left = MARGIN(logits_fn, None, batch.images, batch.labels, jnp.float32(1.0))
    assert bool(jnp.all(found)) and left.tolist() == [True] * 2 + [False] * (B - 2)
    np.testing.assert_allclose(adversarial.epsilon[2:], per_example_norm(delta, "linf")[2:], rtol=1e-5)
    flips = jnp.argmax(logits_fn(batch.images + delta), -1) != batch.labels
    assert bool(jnp.all(flips[2:]))


def test_the_search_is_unrestricted_by_default():
    assert float(budgets.cutoff_scale(MARGIN, None).init(told(1)).epsilon_max) == 1.0
    assert float(budgets.cutoff_scale(MARGIN, None, bounds=Bounds(-1.0, 1.0)).init(told(1)).epsilon_max) == 2.0


def test_nothing_found_counts_as_epsilon_max():
    constant_net = lambda x: jnp.stack([x[:, 0] * 0 + 1, x[:, 0] * 0], -1)  # noqa: E731
    budget = budgets.cutoff_scale(MARGIN, None, cutoff=budgets.Cutoff("off"), scale=1.0, epsilon_max=0.7)
    batch = Batch(jnp.full((2, 3), 0.5), jnp.array([0, 1]), jnp.arange(2), jnp.ones(2))
    keys = jax.random.split(jax.random.key(0), 2)
    adversarial, _ = budget.perturb(keys, constant_net, batch, budget.init(told(2)), step=jnp.int32(0), gather=lambda x: x)
    np.testing.assert_allclose(adversarial.epsilon, [0.7, 0.0])


def test_the_cutoff_is_that_of_the_real_examples_and_is_carried():
    _logits_fn, batch = network()
    padded = Batch(*(jnp.concatenate([x, x[:4]]) for x in batch))._replace(weight=jnp.array([1.0] * B + [0.0] * 4))
    budget = budgets.cutoff_scale(MARGIN, ATTACK, cutoff=budgets.parse_cutoff("running-mean:0.9"))
    keys = jax.random.split(jax.random.key(5), B)
    plain, state = run(budget, keys=keys)
    with_padding, padded_state = run(budget, batch=padded, keys=jnp.concatenate([keys, keys[:4]]))
    assert float(state.cutoff) == pytest.approx(float(padded_state.cutoff)) and int(state.running.num_batches) == 1
    np.testing.assert_allclose(plain.images, with_padding.images[:B], atol=1e-6)
    again = run(budget, state=state, keys=keys)[1]
    assert int(again.running.num_batches) == 2


def test_gather_decides_the_batch_that_the_cutoff_sees():
    logits_fn, batch = network()
    budget = budgets.cutoff_scale(MARGIN, ATTACK)
    keys = jax.random.split(jax.random.key(5), B)
    doubled = lambda x: jnp.concatenate([x, jnp.ones_like(x)])  # noqa: E731  as if another device held margins of 1
    _, alone = budget.perturb(keys, logits_fn, batch, budget.init(told(B)), step=jnp.int32(0), gather=lambda x: x)
    _, among = budget.perturb(keys, logits_fn, batch, budget.init(told(B)), step=jnp.int32(0), gather=doubled)
    assert float(among.cutoff) == pytest.approx((float(alone.cutoff) + 1) / 2, rel=1e-5)


def test_other_bounds():
    bounds = Bounds(-1.0, 1.0)
    attack = partial(pgd, norm="linf", num_steps=4, bounds=bounds)
    budget = budgets.cutoff_scale(budgets.pgd_search(bounds=bounds), attack, scale=3.0, bounds=bounds)
    _logits_fn, batch = network()
    batch = batch._replace(images=batch.images * 2 - 1)
    adversarial, _ = run(budget, batch=batch)
    assert float(adversarial.images.min()) < 0 and bool(jnp.all(jnp.abs(adversarial.images) <= 1))


def test_sweeps_may_batch_scale_and_epsilon():
    logits_fn, batch = network()
    keys = jax.random.split(jax.random.key(5), B)
    budget = budgets.cutoff_scale(MARGIN, ATTACK)
    states = jax.vmap(lambda scale: budget.init(told(B))._replace(scale=scale))(jnp.array([0.5, 1.0, 1.5]))
    go = lambda s: budget.perturb(keys, logits_fn, batch, s, step=jnp.int32(0), gather=lambda x: x)[0].epsilon  # noqa: E731
    np.testing.assert_allclose(jax.vmap(go)(states)[2], 3 * go(budget.init(told(B))._replace(scale=jnp.float32(0.5))), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: budgets.uniform(ATTACK, -0.1), "epsilon = -0.1"),
        (lambda: budgets.cutoff_scale(MARGIN, ATTACK, scale=0.0), "scale"),
        (lambda: budgets.cutoff_scale(MARGIN, ATTACK, epsilon_max=float("inf")), "epsilon_max"),
        (lambda: budgets.cutoff_scale(MARGIN, ATTACK, norm="l0"), "norm"),
        (lambda: budgets.cutoff_scale(MARGIN, ATTACK, norm="l2"), "epsilon_max = None"),
        (lambda: budgets.cutoff_scale(MARGIN, ATTACK, cutoff=budgets.Cutoff("median")), "cutoff"),
    ],
)
def test_refusals(make, name):
    with pytest.raises(SettingError, match=name):
        make()
