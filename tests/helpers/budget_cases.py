"""A small network, a batch that it mostly classifies, and budgets that perturb it."""

from functools import partial

import jax
import jax.numpy as jnp
from told import told

from bap_jax import budgets
from bap_jax.attacks import pgd
from bap_jax.mathematics.objectives import soft_margin_loss
from bap_jax.types import Batch

B, D, K = 8, 12, 3
ATTACK = partial(pgd, norm="linf", num_steps=4)
MARGIN = budgets.pgd_search(num_steps=2)


NEIGHBOURS = {
    "mma": budgets.mma(partial(ATTACK, objective=soft_margin_loss), num_bisections=4),
    "iaat": budgets.iaat(ATTACK, warmup_steps=0, epsilon_step=0.05, rate=0.5),
    "cat": budgets.cat(partial(ATTACK, random_start=False)),
    "fat": budgets.fat(tau_steps=(), epsilon=0.1, num_steps=4),
}


def network():
    """Two layers, trained by nobody but good enough: labels are its own predictions, save two."""
    w1, w2 = jax.random.normal(jax.random.key(0), (D, 16)), jax.random.normal(jax.random.key(1), (16, K))
    logits_fn = lambda x: jax.nn.relu(x @ w1) @ w2  # noqa: E731
    images = jax.random.uniform(jax.random.key(2), (B, D))
    labels = jnp.argmax(logits_fn(images), -1).at[0].add(1).at[1].add(1) % K
    return logits_fn, Batch(images, labels, jnp.arange(B), jnp.ones(B))


def run(budget, state=None, batch=None, keys=None):
    logits_fn, default = network()
    batch = batch or default
    keys = keys if keys is not None else jax.random.split(jax.random.key(5), len(batch.labels))
    state = budget.init(told(100)) if state is None else state
    perturb = jax.jit(lambda k, b, s: budget.perturb(k, logits_fn, b, s, step=jnp.int32(0), gather=lambda x: x))
    return perturb(keys, batch, state)
