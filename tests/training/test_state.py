"""A state may be donated: no two of its leaves share a buffer, in whatever part the same array stands at two places."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from told import told

from bap_jax import budgets, losses, models, pruners
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.mathematics.schedules import Ramp
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


def twice(info):
    table = jnp.zeros(info.num_examples)
    return {"table": table, "same": table}


def teacher(params, model_state, info):
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
    "budget": (MODEL, optax.sgd(0.1), Budget(twice, None), losses.clean()),
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
        return init_state(model, *slots, key=jax.random.key(0), images=IMAGES, info=told(6))

    state = jax.jit(make)() if compiled else make()
    found = pointers(state)
    assert len(set(found)) == len(found)
    assert state.trainable["encoder"].tolist() == state.trainable["decoder"].tolist()


def test_a_donated_state_with_tied_weights_trains_as_one_that_is_not_donated():
    slots = optax.adam(1e-2), pruners.dense(), budgets.none(), losses.clean()
    step = make_train_step(MODEL.apply, *slots)
    seen = []
    for options in ({}, {"donate_argnums": 0}):
        state = init_state(MODEL, *slots, key=jax.random.key(0), images=IMAGES, info=told(6))
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
    state = init_state(model, *slots, key=jax.random.key(0), images=IMAGES, info=told(6))
    assert state.trainable["w"] is weight


def of(masks=None, pruner=None, **given):
    pruner = pruner or pruners.magnitude(Ramp(0.0, 0.9, 0, 4, 1))
    return init_state(
        MODEL, optax.sgd(0.1), pruner, budgets.none(), losses.clean(),
        key=jax.random.key(0), images=IMAGES, info=told(6), masks=masks, **given,
    )  # fmt: skip


def given_weights():
    random = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), tied(jax.random.key(0), IMAGES))


def test_given_weights_and_statistics_are_begun_with_and_stay_the_users():
    params = given_weights()
    state = of(params=params)
    jax.tree.map(np.testing.assert_array_equal, state.trainable, params)
    assert not set(pointers(state)) & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params)}
    assert jax.tree.structure(state) == jax.tree.structure(of())  # no compile besides that of new weights
    seen = {"seen": jnp.float32(3), "again": jnp.float32(4)}
    pruner, model = pruners.dense(), Model(stateful, MODEL.apply)
    slots = model, optax.sgd(0.1), pruner, budgets.none(), losses.clean()
    options = {"key": jax.random.key(0), "images": IMAGES, "info": told(6)}
    found = init_state(*slots, **options, model_state=seen)
    assert found.model_state == seen
    jax.tree.map(np.testing.assert_array_equal, found.trainable, init_state(*slots, **options).trainable)


def test_given_masks_prune_the_first_weights_and_those_of_a_loss():
    masks = {name: jnp.bool_(True) for name in ("encoder", "bias", "other", "out")} | {"decoder": jnp.eye(4, dtype=bool)}
    state = of(masks, params=given_weights())
    assert int((state.trainable["decoder"] != 0).sum()) == 4 and int((state.trainable["out"] == 0).sum()) == 0
    assert state.prune.masks["decoder"].tolist() == jnp.eye(4, dtype=bool).tolist() and state.prune.masks["out"].shape == (4, 3)


def test_what_does_not_fit_the_model_is_refused_by_its_first_leaf():
    with pytest.raises(CheckpointError, match=r"params does not fit the model at bias: given is float32\[5\], expected"):
        of(params=given_weights() | {"bias": jnp.zeros(5)})
    with pytest.raises(CheckpointError, match="model_state does not fit the model at mean: given is float32"):
        of(model_state={"mean": jnp.zeros(4)})
    with pytest.raises(SettingError, match="masks/out = 'no mask'"):
        of({name: jnp.bool_(True) for name in ("encoder", "bias", "other", "decoder")})


def test_a_pruner_that_takes_no_masks_is_refused_only_where_there_are_some():
    own = pruners.dense()._replace(init=lambda key, params: (params, pruners.DenseState(params)))
    of(pruner=own)
    with pytest.raises(SettingError, match=r"pruner = .*lambda.*: expected one that begins with given masks"):
        of(jax.tree.map(lambda _: jnp.bool_(True), given_weights()), own)


def begin(budget=None, loss=None, **given):
    slots = optax.sgd(0.1), pruners.dense(), budget or budgets.none(), loss or losses.clean()
    return init_state(MODEL, *slots, key=jax.random.key(0), images=IMAGES, **given)


def test_the_size_of_the_training_set_alone_is_enough_for_one_more_release():
    with pytest.warns(FutureWarning, match="give info="):
        assert begin(Budget(twice, None), num_examples=6).budget["table"].shape == (6,)
    for given in ({}, {"num_examples": 6, "info": told(6)}):
        with pytest.raises(SettingError, match="info = "):
            begin(**given)


def test_slots_whose_init_knows_no_info_are_called_as_before_for_one_more_release():
    with pytest.warns(FutureWarning, match=r"a budget whose init takes no `info`.*init\(info\)"):
        assert begin(Budget(lambda count: jnp.zeros(count), None), info=told(5)).budget.shape == (5,)
    old = Loss(lambda params, model_state: {"teacher": params}, losses.clean().value)
    with pytest.warns(FutureWarning, match=r"a loss whose init takes no `info`.*init\(params, model_state, info\)"):
        assert begin(loss=old, info=told(5)).loss["teacher"].keys() == MODEL.init(jax.random.key(0), IMAGES)[0].keys()
