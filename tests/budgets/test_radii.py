"""Radii of budgets: what a person gives is held against the box, what a budget computes is not."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from told import told

from bap_jax import budgets
from bap_jax.attacks import pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import soft_margin_loss
from bap_jax.types import Batch, Bounds

ATTACK = partial(pgd, num_steps=1, random_start=False)
KEYS = jax.random.split(jax.random.key(0), 3)
IMAGES = jnp.array([[0.9, 0.1], [0.6, 0.5], [0.2, 0.7]])
BATCH = Batch(IMAGES, jnp.array([0, 0, 1]), jnp.arange(3), jnp.ones(3))


def constant(images):
    """Nothing is ever found: budgets grow as far as they go."""
    return jnp.zeros_like(images).at[:, 0].set(1.0) + 0 * images


@pytest.mark.parametrize("make, name", [
    (lambda: budgets.uniform(ATTACK, 8), "epsilon"),
    (lambda: budgets.uniform(partial(pgd, num_steps=1, norm="rms"), 8), "epsilon"),
    (lambda: budgets.cutoff_scale(budgets.pgd_search(), ATTACK, epsilon_max=255.0), "epsilon_max"),
    (lambda: budgets.cutoff_scale(budgets.pgd_search(), ATTACK, cutoff=budgets.Cutoff("constant", 8.0)), "cutoff"),
    (lambda: budgets.mma(ATTACK, epsilon_max=32), "epsilon_max"),
    (lambda: budgets.iaat(ATTACK, warmup_steps=0, epsilon=8), "epsilon"),
    (lambda: budgets.iaat(ATTACK, warmup_steps=0, epsilon_step=2), "epsilon_step"),
    (lambda: budgets.cat(ATTACK, epsilon_max=8, label_factor=0.1), "epsilon_max"),
    (lambda: budgets.fat(tau_steps=(), epsilon=8), "epsilon"),
])  # fmt: skip
def test_wider_than_the_box_is_refused(make, name):
    with pytest.raises(SettingError, match=rf"^{name} = .*size of the box \[0, 1\]; .*/255\?"):
        make()


def test_the_attack_s_own_box_counts():
    wide = partial(ATTACK, bounds=Bounds(0.0, 255.0))
    assert float(budgets.uniform(wide, 8).init(told(1)).epsilon) == 8.0
    says_none = lambda logits_fn, keys, images, labels, *, epsilon: None  # noqa: E731
    assert float(budgets.uniform(says_none, 8).init(told(1)).epsilon) == 8.0


@pytest.mark.parametrize("budget, state", [
    (budgets.cutoff_scale(budgets.pgd_search(), ATTACK, cutoff=budgets.Cutoff("off"), scale=3.0), {}),
    (budgets.iaat(ATTACK, warmup_steps=0), {"epsilons": jnp.full(3, 1.5)}),
    (budgets.cat(ATTACK), {"epsilons": jnp.full(3, 1.5)}),
    (budgets.mma(partial(ATTACK, objective=soft_margin_loss), num_bisections=1), {"epsilons": jnp.full(3, 1.5)}),
], ids=["cutoff_scale", "iaat", "cat", "mma"])  # fmt: skip
def test_what_a_budget_computes_may_be_wider(budget, state):
    """Called without jit, where its radii are concrete."""
    given, state = BATCH._replace(labels=jnp.zeros(3, int)), budget.init(told(3))._replace(**state)
    adversarial, _ = budget.perturb(KEYS, constant, given, state, step=jnp.int32(5), gather=lambda x: x)
    assert ((adversarial.images >= 0) & (adversarial.images <= 1)).all()


@pytest.mark.parametrize("budget", [budgets.none(), budgets.uniform(ATTACK, 0.1)], ids=["none", "uniform"])
def test_one_logit_and_labels_that_are_no_class_are_refused(budget):
    perturb = partial(budget.perturb, KEYS, state=budget.init(told(3)), step=jnp.int32(0), gather=lambda x: x)
    with pytest.raises(SettingError, match=r"logits_fn = .*two classes"):
        perturb(lambda images: images[:, :1], BATCH)
    with pytest.raises(SettingError, match="labels = 2 at position 1"):
        perturb(lambda images: images, BATCH._replace(labels=jnp.array([0, 2, 1])))


def test_a_margin_is_none_where_the_logits_are_not_finite():
    def network(images):
        logits = jnp.stack([images[:, 0], 0.1 - images[:, 0]], axis=1)
        return jnp.where(images[:, :1] < 0.3, jnp.array([[jnp.nan, 1.0]]), logits)

    margin = budgets.margin_search(network, IMAGES[:2], jnp.array([0, 0]), -IMAGES[:2], grid=4)
    assert not margin.found.any() and (margin.fraction == 1).all()
