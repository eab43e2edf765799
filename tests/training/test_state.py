"""A state may be donated: no two of its leaves share a buffer, in whatever part the same array stands at two places."""

import jax
import jax.numpy as jnp
import optax
import pytest

from bap_jax import budgets, losses, models, pruners
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch, Budget, Loss, Model

IMAGES = jax.random.uniform(jax.random.key(0), (6, 4))
BATCH = Batch(IMAGES, jnp.arange(6) % 3, jnp.arange(6), jnp.ones(6))


def tied(key, images):
    weight, zeros = jax.random.normal(key, (4, 4)), jnp.zeros(4)
    return {"encoder": weight, "decoder": weight, "bias": zeros, "other": zeros, "out": jax.random.normal(key, (4, 3))}


def run(params, images):
    hidden = images @ params["encoder"] + params["bias"][None]
    return (hidden @ params["decoder"] + params["other"][None]) @ params["out"]


MODEL = models.from_function(tied, run)


def stateful(key, images):
    counts = jnp.zeros(())
    return tied(key, images), {"seen": counts, "again": counts}


def teacher(params, model_state):
    return {"teacher": params, "same": params}


def accumulating():
    """An optimiser that keeps the parameters themselves, as averaging ones do."""
    return optax.GradientTransformation(
        lambda params: {"average": params, "slow": params}, lambda updates, state, params=None: (updates, state)
    )


CASES = {
    "weights": (MODEL, optax.adam(1e-3), budgets.none(), losses.clean()),
    "model_state": (Model(stateful, MODEL.apply), optax.sgd(0.1), budgets.none(), losses.clean()),
    "opt_state": (MODEL, accumulating(), budgets.none(), losses.clean()),
    "budget": (MODEL, optax.sgd(0.1), Budget(lambda count: (lambda a: {"a": a, "b": a})(jnp.zeros(count)), None), losses.clean()),
    "loss": (MODEL, optax.sgd(0.1), budgets.none(), Loss(teacher, losses.clean().value)),
}


def pointers(state) -> list[int]:
    plain = state._replace(key=jax.random.key_data(state.key))
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(plain)]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("case", CASES)
def test_no_two_leaves_share_a_buffer(case, compiled):
    model, optimizer, budget, loss = CASES[case]

    def make():
        slots = optimizer, pruners.dense(), budget, loss
        return init_state(model, *slots, key=jax.random.key(0), images=IMAGES, num_examples=6)

    state = jax.jit(make)() if compiled else make()
    found = pointers(state)
    assert len(set(found)) == len(found)
    assert state.trainable["encoder"].tolist() == state.trainable["decoder"].tolist()


def test_a_donated_state_with_tied_weights_trains_as_one_that_is_not_donated():
    slots = optax.adam(1e-2), pruners.dense(), budgets.none(), losses.clean()
    step = make_train_step(MODEL.apply, *slots)
    seen = []
    for options in ({}, {"donate_argnums": 0}):
        state = init_state(MODEL, *slots, key=jax.random.key(0), images=IMAGES, num_examples=6)
        compiled = jax.jit(step, **options)
        for _ in range(3):
            state, metrics = compiled(state, BATCH)
        seen.append(float(metrics["loss"]))
    assert seen[0] == seen[1]


def test_what_shares_nothing_is_not_copied():
    """A copy of each leaf would be a compile for each shape."""
    weight = jnp.ones((4, 3))
    model = models.from_function(lambda key, images: {"w": weight}, lambda params, images: images @ params["w"])
    slots = optax.sgd(0.1), pruners.dense(), budgets.none(), losses.clean()
    state = init_state(model, *slots, key=jax.random.key(0), images=IMAGES, num_examples=6)
    assert state.trainable["w"] is weight
