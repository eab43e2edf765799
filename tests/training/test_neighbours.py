"""Budgets with a table and losses with a factor in the train step: one device, a mesh and pmap agree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from told import told

from bap_jax import budgets, losses, models, pruners
from bap_jax.attacks import pgd
from bap_jax.mathematics.objectives import soft_margin_loss
from bap_jax.parallel import data_mesh, jit_step, replicate, shard_batch
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch

B, D, K, N = 16, 6, 3, 40
ATTACK = partial(pgd, norm="linf", num_steps=2)
ARMS = {
    "mma": (budgets.mma(partial(ATTACK, objective=soft_margin_loss), epsilon_max=0.05, num_bisections=3), losses.mma()),
    "iaat": (budgets.iaat(ATTACK, warmup_steps=2, epsilon_step=0.02, rate=0.5), losses.mart()),
    "cat": (budgets.cat(partial(ATTACK, random_start=False)), losses.madry()),
    "fat": (budgets.fat(tau_steps=(1, 3), epsilon=0.1, num_steps=2, objective="kl"), losses.trades()),
}
SLOTS = {name: (optax.sgd(0.5), pruners.dense(), *arm) for name, arm in ARMS.items()}
MODEL = models.from_function(
    lambda key, images: {"kernel": jax.random.normal(key, (D, K)), "bias": jnp.zeros(K)},
    lambda params, images: images @ params["kernel"] + params["bias"][None],
)


def start():
    make = partial(init_state, MODEL, key=jax.random.key(0), images=jnp.zeros((1, D)), info=told(N))
    return {name: make(*slots) for name, slots in SLOTS.items()}


def batches(num):
    """Real examples in 13 of 16 places, so that devices have unequal shares; every second batch sees the same examples again."""
    weight = jnp.array([1.0] * (B - 3) + [0.0] * 3)
    for i in range(num):
        images = jax.random.uniform(jax.random.key(i % 2), (B, D))
        index = jnp.where(weight > 0, (jnp.arange(B) * 3 + i % 2) % N, N)
        yield Batch(images, jnp.arange(B) % K, index, weight)


def every_step(axis_name=None):
    """All arms in one program: one compile instead of four."""
    steps = {name: make_train_step(MODEL.apply, *slots, axis_name=axis_name) for name, slots in SLOTS.items()}

    def step(states, batch):
        both = {name: steps[name](states[name], batch) for name in steps}
        return {name: state for name, (state, _) in both.items()}, {name: metrics for name, (_, metrics) in both.items()}

    return step


def run(step, states, data):
    metrics = None
    for batch in data:
        states, metrics = step(states, batch)
    return states, metrics


def test_one_device_a_mesh_and_pmap_agree():
    states = start()
    single, single_metrics = run(jax.jit(every_step()), states, batches(4))
    mesh = data_mesh(2)
    sharded = (shard_batch(mesh, jax.device_get(batch)) for batch in batches(4))
    meshed, meshed_metrics = run(jit_step(every_step(), mesh), replicate(mesh, states), sharded)
    mapped_step = jax.pmap(every_step("devices"), axis_name="devices", in_axes=(None, 0), out_axes=0, devices=jax.devices()[:2])
    mapped = states
    for batch in batches(4):
        split = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
        everywhere, mapped_metrics = mapped_step(mapped, split)
        for name in ARMS:  # no device knows more than another
            jax.tree.map(lambda x: np.testing.assert_array_equal(x, np.repeat(x[:1], 2, axis=0)), everywhere[name].budget)
        mapped = jax.tree.map(lambda x: x[0], everywhere)
    mapped_metrics = jax.tree.map(lambda x: x[0], mapped_metrics)

    for name in ARMS:
        for other, metrics in ((meshed, meshed_metrics), (mapped, mapped_metrics)):
            for part in ("trainable", "budget"):
                close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6, err_msg=f"{name} {part}")
                jax.tree.map(close, getattr(single[name], part), getattr(other[name], part))
            for key, value in single_metrics[name].items():
                np.testing.assert_allclose(value, metrics[name][key], rtol=1e-4, atol=1e-5, err_msg=f"{name} {key}")
        if name != "fat":
            table = np.asarray(single[name].budget.epsilons)
            seen = np.unique([index for batch in batches(2) for index in np.asarray(batch.index) if index < N])
            assert np.any(table[seen] > 0) and np.all(np.delete(table, seen) == 0)
    assert int(single["fat"].budget.tau) == 2 and int(single["iaat"].budget.warmup_steps) == 2
