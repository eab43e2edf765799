"""The structured pruner: magnitude pruning's seams, whole structures, and channels that are zero behind BatchNorm and ReLU."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax import pruners
from bap_jax.errors import SettingError
from bap_jax.mathematics.channels import Family, Groups, Layer, Slice
from bap_jax.mathematics.schedules import Ramp
from bap_jax.models import from_linen
from bap_jax.structure import groups_of

KEY = jax.random.key(0)
GROUPS = Groups(
    (
        Family(
            "a",
            (Slice("params", "a", 1, np.arange(6)[:, None], "makes"), Slice("params", "b", 0, np.arange(6)[:, None], "reads")),
        ),
    ),
    (Layer("a", 1, 0), Layer("b", 1, 0, free_outputs=False)),
)
PARAMS = {"a": jax.random.normal(KEY, (3, 6)), "b": jax.random.normal(KEY, (6, 2)), "c": jnp.ones(2)}


def ramped(pruner, masks=None, num_steps=9):
    weights, state = pruner.init(KEY, PARAMS, masks)
    update, states = jax.jit(pruner.update), [state]
    for step in range(num_steps):
        if pruner.due(jnp.int32(step), state):
            weights, state = update(jax.random.key(step), jnp.int32(step), weights, None, state)
        weights = pruner.project(weights, state)
        states.append(state)
    return weights, states


def columns(state):
    return np.asarray(state.masks["a"]).any(0)


@pytest.mark.parametrize("criterion", ["l1", "random"])
def test_a_ramp_ends_at_the_share_of_structures_asked_for(criterion):
    weights, states = ramped(pruners.structured(Ramp(0.0, 0.5, 1, 7, 2), GROUPS, scope="coupled", criterion=criterion))
    kept = [int(columns(state).sum()) for state in states]
    assert kept[0] == 6 and kept[-1] == 3 and kept == sorted(kept, reverse=True)
    assert all(np.all(columns(after) <= columns(before)) for before, after in itertools.pairwise(states))
    params, masks = pruners.structured(Ramp(0.0, 0.5, 1, 7, 2), GROUPS).finish(weights, states[-1])
    gone = ~columns(states[-1])
    assert not np.asarray(params["a"])[:, gone].any() and not np.asarray(params["b"])[gone].any()
    assert masks["c"].ndim == 0 and float(states[-1].sparsity) == 0.5


def test_given_masks_are_an_upper_bound_and_the_ramp_begins_at_what_they_prune():
    given = {"a": jnp.ones((3, 6), bool).at[:, :2].set(False).at[0, 2].set(False), "b": jnp.bool_(True), "c": jnp.bool_(True)}
    pruner = pruners.structured(Ramp(0.0, 0.5, 0, 4, 2), GROUPS)
    _, states = ramped(pruner, {**given}, 5)
    assert type(states[0]) is pruners.CappedState
    assert all(bool(jnp.all(state.masks["a"] <= given["a"])) for state in states)
    assert [int(columns(state).sum()) for state in states] == [4, 4, 4, 3, 3, 3]
    assert float(states[1].sparsity) == pytest.approx(1 / 3)


def test_the_gradient_is_not_masked_and_a_filter_may_return():
    pruner = pruners.structured(Ramp(0.5, 0.5, 0, 10, 5), GROUPS)
    weights, state = pruner.init(KEY, PARAMS)
    weights, state = pruner.update(KEY, jnp.int32(0), weights, None, state)
    gone = int(np.argmin(columns(state)))
    pull = jax.vjp(lambda weights: pruner.effective(weights, state), weights)[1]
    assert bool(jnp.all(pull(jax.tree.map(jnp.ones_like, PARAMS))[0]["a"] == 1))
    grown = pruner.project(weights, state)
    grown = grown | {"a": grown["a"].at[:, gone].set(9.0)}
    assert columns(pruner.update(KEY, jnp.int32(5), grown, None, state)[1])[gone]


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 3))(x)
        behind = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(2)(behind.mean((1, 2))), {"behind": behind}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("scope", ["layer", "coupled"])
def test_a_pruned_channel_is_exactly_zero_behind_batch_norm_and_relu(scope, train):
    model, images = from_linen(Net()), jax.random.normal(KEY, (4, 5, 5, 1))
    params, model_state = model.init(KEY, images)
    random = np.random.default_rng(0)
    params, model_state = jax.tree.map(
        lambda leaf: jnp.asarray(random.uniform(0.1, 1.0, leaf.shape), jnp.float32), (params, model_state)
    )
    pruner = pruners.structured(Ramp(0.5, 0.5, 0, 1, 1), groups_of(model, params, model_state, (5, 5, 1)), scope=scope)
    weights, state = pruner.init(KEY, params)
    weights, state = pruner.update(KEY, jnp.int32(0), weights, None, state)
    outputs, _ = model.apply(pruner.effective(weights, state), model_state, images, train=train)
    kept = np.asarray(state.masks["Conv_0"]["kernel"]).any((0, 1, 2))
    np.testing.assert_array_equal(np.asarray(outputs.taps["behind"]).any((0, 1, 2)), kept)
    assert kept.sum() == 3


def test_refusals():
    with pytest.raises(SettingError, match="structure = 'filters'"):
        pruners.structured(Ramp(0.0, 0.5, 0, 1, 1), GROUPS, structure="filters")
    with pytest.raises(SettingError, match="final_sparsity"):
        pruners.structured(Ramp(0.0, 1.5, 0, 1, 1), GROUPS)
    with pytest.raises(SettingError, match="masks/a"):
        pruners.structured(Ramp(0.0, 0.5, 0, 1, 1), GROUPS).init(KEY, PARAMS, {"a": jnp.ones(2, bool)})
