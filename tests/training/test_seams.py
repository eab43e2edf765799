"""What a pruner may leave out: moments that begin anew, a second gradient; and that the step of one without is as it was."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from told import told

import bap_jax as bap
from bap_jax import budgets, losses, models, pruners
from bap_jax.attacks import pgd
from bap_jax.mathematics.moments import forget
from bap_jax.training import by_part, init_state, make_train_step
from bap_jax.types import Batch, Pruner, Recipe

B, D, K = 8, 6, 3
MODEL = models.from_function(
    lambda key, images: {"w": 0.3 * jax.random.normal(key, (D, K)), "b": jnp.zeros(K)}, lambda p, x: x @ p["w"] + p["b"][None]
)
IMAGES = jax.random.uniform(jax.random.key(1), (B, D))
BATCH = Batch(IMAGES, jnp.arange(B) % K, jnp.arange(B), jnp.ones(B))
ATTACK = partial(pgd, norm="linf", num_steps=2)
MAGNITUDE = pruners.magnitude(bap.Ramp(0.0, 0.5, 0, 4, 2))


def recipe_with(pruner=MAGNITUDE, optimizer=None, budget=None, loss=None):
    return Recipe(optimizer or optax.sgd(0.1, momentum=0.9), pruner, budget or budgets.none(), loss or losses.clean())


def begun(recipe):
    return init_state(MODEL, *recipe, key=jax.random.key(0), images=IMAGES, info=told(B))


def stepped(recipe, steps=1):
    step, state = jax.jit(make_train_step(MODEL.apply, *recipe)), begun(recipe)
    for _ in range(steps):
        state, metrics = step(state, BATCH)
    return state, metrics


def program(recipe):
    return str(jax.make_jaxpr(make_train_step(MODEL.apply, *recipe))(begun(recipe), BATCH))


def test_what_is_left_out_costs_nothing():
    attacked = {"budget": budgets.uniform(ATTACK, 0.1), "loss": losses.mix()}
    plain, whole = Pruner(*MAGNITUDE[:7]), MAGNITUDE._replace(observe=lambda state, measures: state)
    assert program(recipe_with(plain, **attacked)) == program(recipe_with(whole, **attacked))
    products = [program(recipe_with(pruner)).count("dot_general") for pruner in (plain, plain._replace(ascend=upward))]
    assert products[0] < products[1]


def upward(trainable, gradients, state):
    return jax.tree.map(lambda w, g: w + 0.5 * g, trainable, gradients)


def test_the_second_gradient_is_taken_where_the_pruner_says_and_moves_the_unshifted_weights():
    attacks = []

    def counted(*given, **options):
        attacks.append(given)
        return ATTACK(*given, **options)

    recipe = recipe_with(pruners.dense()._replace(ascend=upward), optax.sgd(1.0), budgets.uniform(counted, 0.1), losses.madry())
    state = begun(recipe)
    new, metrics = make_train_step(MODEL.apply, *recipe)(state, BATCH)
    assert len(attacks) == 1  # both gradients are on the same adversarial examples

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        jax.random.split(jax.random.fold_in(state.key, 0), 3)[0], jnp.arange(B)
    )
    logits = lambda params: lambda x: MODEL.apply(params, {}, x, train=False)[0].logits  # noqa: E731
    examples = ATTACK(logits(state.trainable), keys, IMAGES, BATCH.labels, epsilon=0.1).images

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params)(examples), BATCH.labels).mean()

    first = jax.grad(loss)(state.trainable)
    second = jax.grad(loss)(upward(state.trainable, first, None))
    for name, weight in state.trainable.items():
        np.testing.assert_allclose(new.trainable[name], weight - second[name], rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(second["w"] - first["w"]).max()) > 1e-4
    assert float(metrics["loss"]) == pytest.approx(float(loss(state.trainable)), rel=1e-5)  # of the first pass


def test_statistics_move_once_where_a_second_gradient_is_taken():
    def seen(key, images):
        return {"w": jnp.ones((D, K))}, {"passes": jnp.float32(0)}

    def apply(params, model_state, images, *, train, key=None):
        moved = {"passes": model_state["passes"] + jnp.float32(train)}
        return bap.Outputs(images @ params["w"], {}), moved if train else model_state

    recipe = recipe_with(pruners.dense()._replace(ascend=upward))
    state = init_state(bap.Model(seen, apply), *recipe, key=jax.random.key(0), images=IMAGES, info=told(B))
    assert float(make_train_step(apply, *recipe)(state, BATCH)[0].model_state["passes"]) == 1


def first_column(trainable):
    """Bools that are true in the first column of a leaf and for no bias."""
    return jax.tree.map(lambda leaf: jnp.arange(leaf.shape[-1]) == 0 if leaf.ndim == 2 else jnp.bool_(False), trainable)


def resetting(pruner):
    """A pruner whose updates have the moments of the first column begin anew."""

    def update(key, step, trainable, gradients, state):
        anew = jax.tree.map(lambda mask, leaf: jnp.broadcast_to(mask, leaf.shape), first_column(trainable), trainable)
        return *pruner.update(key, step, trainable, gradients, state), anew

    return pruner._replace(update=update, resets=True)


OPTIMIZERS = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "injected": optax.inject_hyperparams(
        lambda learning_rate: optax.chain(optax.clip_by_global_norm(9.0), optax.adam(learning_rate))
    )(learning_rate=0.1),
    "by part": by_part(optax.adam(0.1)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_begin_anew_where_an_update_says(name):
    """The masks change at steps 0, 2 and 4, and each time the first column's moments are zero; all else is as without."""
    recipe = recipe_with(resetting(MAGNITUDE), OPTIMIZERS[name])
    moments = lambda state: [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (D, K)]  # noqa: E731
    (first, _), (other, _) = stepped(recipe), stepped(recipe_with(MAGNITUDE, OPTIMIZERS[name]))
    assert jax.tree.structure(first) == jax.tree.structure(other) and len(moments(first)) > 0
    for mine, theirs in zip(moments(first), moments(other), strict=True):
        np.testing.assert_array_equal(mine[:, 0], 0.0)
        np.testing.assert_array_equal(mine[:, 1:], theirs[:, 1:])
        assert bool(jnp.all(theirs[:, 0] != 0))
    assert all(bool(jnp.all(moment[:, 0] != 0)) for moment in moments(stepped(recipe, steps=2)[0]))


class Scores:
    """Scores beside weights, as score-based methods have them; masks are the largest of a layer's."""

    @staticmethod
    def init(key, params, masks=None):
        return {"weights": params, "scores": {"w": jnp.abs(params["w"])}}, pruners.FixedState(
            {"w": params["w"] > 0, "b": jnp.bool_(True)}
        )

    @staticmethod
    def effective(trainable, state):
        weights = trainable["weights"]
        return {**weights, "w": jnp.where(state.masks["w"], weights["w"] * trainable["scores"]["w"], 0.0)}


def scores_pruner():
    fixed = pruners.fixed()
    return fixed._replace(
        init=Scores.init,
        effective=Scores.effective,
        project=lambda trainable, state: trainable,
        finish=lambda trainable, state: (Scores.effective(trainable, state), state.masks),
    )


def test_scores_and_weights_have_optimisers_of_their_own():
    recipe = recipe_with(scores_pruner(), by_part(optax.set_to_zero(), scores=optax.sgd(1.0)))
    before, (after, _) = begun(recipe), stepped(recipe)
    np.testing.assert_array_equal(after.trainable["weights"]["w"], before.trainable["weights"]["w"])
    assert bool(jnp.any(after.trainable["scores"]["w"] != before.trainable["scores"]["w"]))


def test_moments_of_one_part_are_forgotten():
    optimizer = by_part(optax.sgd(0.1, momentum=0.9), scores=optax.adam(0.1))
    params = {"weights": {"w": jnp.ones(2), "b": jnp.ones(3)}, "scores": {"w": jnp.ones(2)}}
    _, state = optimizer.update(params, optimizer.init(params), params)
    forgotten = {"weights": {"w": jnp.array([True, False]), "b": jnp.bool_(False)}, "scores": {"w": jnp.bool_(True)}}
    state = forget(optimizer, state, forgotten)
    trace, adam = state.inner_states["weights"].inner_state[0].trace, state.inner_states["scores"].inner_state[0]
    assert trace["weights"]["w"].tolist() == [0.0, 1.0] and trace["weights"]["b"].tolist() == [1.0] * 3
    assert adam.mu["scores"]["w"].tolist() == adam.nu["scores"]["w"].tolist() == [0.0, 0.0] and int(adam.count) == 1


def test_when_a_pruner_is_settled():
    _, state = MAGNITUDE.init(jax.random.key(0), {"w": jnp.ones((D, K))})
    assert [bool(MAGNITUDE.settled(step, state)) for step in (0, 4, 5)] == [False, False, True]
    assert bool(pruners.dense().settled(0, None))


def test_the_network_of_a_state():
    recipe = recipe_with()
    state, _ = stepped(recipe, steps=5)
    params, masks, model_state = bap.network(state, recipe)
    assert int((params["w"] == 0).sum()) == int((~masks["w"]).sum()) == D * K // 2 and model_state == {}
