"""A batch in chunks: the step is that of the whole batch; what needs all of it at once says so."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from budget_cases import ATTACK, MARGIN, NEIGHBOURS
from told import told

import bap_jax as bap
from bap_jax import budgets, losses, models, pruners
from bap_jax.errors import SettingError
from bap_jax.mathematics.schedules import Ramp
from bap_jax.parallel import data_mesh, jit_step, replicate, shard_batch
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch, Recipe

B, D, K = 16, 12, 3
MODEL = models.from_function(
    lambda key, x: {"a": 0.4 * jax.random.normal(key, (D, 8)), "b": 0.4 * jax.random.normal(jax.random.fold_in(key, 1), (8, K))},
    lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"],
)
WEIGHT = jnp.array([1.0] * (B - 3) + [0.0] * 3)  # padding, all of it in two of four chunks and one of the third
BATCH = Batch(jax.random.uniform(jax.random.key(2), (B, D)), jnp.arange(B) % K, jnp.arange(B), WEIGHT)
BUDGETS = {
    "none": (budgets.none(), losses.clean()),
    "uniform": (budgets.uniform(ATTACK, 0.1), losses.trades()),
    "mean": (budgets.cutoff_scale(MARGIN, ATTACK), losses.mix()),
    "quantile": (budgets.cutoff_scale(MARGIN, None, cutoff=budgets.parse_cutoff("quantile:0.7")), losses.mart()),
    **{name: (budget, losses.mma() if name == "mma" else losses.madry()) for name, budget in NEIGHBOURS.items()},
}


def recipe_of(name):
    return Recipe(optax.sgd(0.5, momentum=0.9), pruners.magnitude(Ramp(0.0, 0.5, 0, 2, 1)), *BUDGETS[name])


def begun(recipe, model=MODEL):
    return init_state(model, *recipe, key=jax.random.key(0), images=BATCH.images, info=told(B, num_steps=4))


def stepped(recipe, count, steps=2, mesh=None):
    step = jit_step(make_train_step(MODEL.apply, *recipe, microbatches=count), mesh)
    state = begun(recipe) if mesh is None else replicate(mesh, begun(recipe))
    for _ in range(steps):
        state, metrics = step(state, BATCH if mesh is None else shard_batch(mesh, jax.device_get(BATCH)))
    return state, metrics


def assert_same(found, expected):
    (mine, my_metrics), (theirs, their_metrics) = found, expected
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, mine.prune.masks, theirs.prune.masks)
    for part in ("trainable", "budget", "opt_state"):
        jax.tree.map(close, getattr(mine, part), getattr(theirs, part))
    assert my_metrics.keys() == their_metrics.keys()
    for name, value in their_metrics.items():
        close(my_metrics[name], value, err_msg=name)


@pytest.mark.parametrize("name", BUDGETS)
def test_chunks_take_the_step_of_the_whole_batch(name):
    recipe = recipe_of(name)
    assert_same(stepped(recipe, 4), stepped(recipe, 1))


def test_chunks_on_a_mesh_and_in_a_loop_as_accelerators_have_them(monkeypatch):
    recipe = recipe_of("mean")
    whole = stepped(recipe, 1)
    assert_same(stepped(recipe, 4, mesh=data_mesh(2)), whole)
    monkeypatch.setattr(jax, "default_backend", lambda: "other")
    assert_same(stepped(recipe, 4), whole)


def test_statistics_of_chunks_move_once_a_step():
    """Each chunk is normalised by its own statistics; the running mean moves as that of the whole batch does."""

    def init(key, images):
        return {"w": jnp.ones((D, K))}, {"mean": jnp.zeros(D), "passes": jnp.int32(0)}

    def apply(params, model_state, images, *, train, key=None):
        moved = {"mean": 0.9 * model_state["mean"] + 0.1 * images.mean(0), "passes": model_state["passes"] + 1}
        return bap.Outputs((images - images.mean(0, keepdims=True)) @ params["w"], {}), moved if train else model_state

    recipe = Recipe(optax.sgd(0.1), pruners.dense(), budgets.none(), losses.clean())
    found = make_train_step(apply, *recipe, microbatches=4)(begun(recipe, bap.Model(init, apply)), BATCH)[0].model_state
    np.testing.assert_allclose(found["mean"], 0.1 * BATCH.images.mean(0), rtol=1e-5)
    assert int(found["passes"]) == 1


def test_what_needs_the_whole_batch_says_so():
    step = lambda recipe, count=4: make_train_step(MODEL.apply, *recipe, microbatches=count)(begun(recipe), BATCH)  # noqa: E731
    whole = recipe_of("mean")
    with pytest.raises(SettingError, match="microbatches = 5: expected a number that the batch of 16"):
        step(whole, 5)
    with pytest.raises(SettingError, match="microbatches = 0: expected a whole number of at least 1"):
        step(whole, 0)
    own = whole.budget._replace(stages=None)
    with pytest.raises(SettingError, match="for a budget without stages"):
        step(whole._replace(budget=own))

    def value(forward, batch, adversarial, state, *, step, mean, gather):
        (outputs,) = forward(batch.images)
        return mean(outputs.logits[:, 0], batch.weight * 2.0), {}

    with pytest.raises(SettingError, match="means are over other weights"):
        step(whole._replace(loss=losses.mix()._replace(value=value)))
