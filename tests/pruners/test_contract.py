"""What every pruner keeps to. A new one is covered by its row in ``PRUNERS``."""

import functools
import inspect
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from told import told

import bap_jax as bap
from bap_jax import budgets, losses, models, pruners
from bap_jax.mathematics.group_masks import Structures
from bap_jax.mathematics.masks import count_kept, kernels, measured_sparsity
from bap_jax.mathematics.sparsity import kept_count
from bap_jax.structure import groups_of
from bap_jax.training import init_state, make_train_step
from bap_jax.types import Batch, Pruner, Recipe

B, D, H, K, STEPS = 8, 6, 10, 3, 6
RAMP = bap.Ramp(0.0, 0.6, 1, 4, 2)
HALF = {"in": jnp.arange(D * H).reshape(D, H) % 2 == 0, "out": jnp.arange(H * K).reshape(H, K) % 3 != 0, "bias": jnp.bool_(True)}


class Case(NamedTuple):
    """A pruner and what it is to come to."""

    pruner: Pruner
    kept: dict  # of each prunable leaf after the last step, or under "in all"; {} where how many is learnt


def of_layers(sparsity):
    return {"in": int(kept_count(D * H, sparsity)), "out": int(kept_count(H * K, sparsity))}


def network(key, images):
    keys = jax.random.split(key)
    return {"in": jax.random.normal(keys[0], (D, H)), "out": jax.random.normal(keys[1], (H, K)), "bias": jnp.zeros(K)}


MODEL = models.from_function(network, lambda p, x: jax.nn.relu(x @ p["in"]) @ p["out"] + p["bias"][None])
GROUPS = groups_of(MODEL, network(jax.random.key(0), None), {}, (D,))
IN_ALL = {"in all": int(kept_count(D * H + H * K, 0.6))}
PRUNERS = {
    "dense": Case(pruners.dense(), of_layers(0.0)),
    "at_start": Case(pruners.at_start(0.6, GROUPS), of_layers(0.6)),
    "fixed": Case(pruners.fixed(HALF), {"in": 30, "out": 20}),
    "magnitude": Case(pruners.magnitude(RAMP), of_layers(0.6)),
    "magnitude global": Case(pruners.magnitude(RAMP, scope="global"), IN_ALL),
    "magnitude erk": Case(pruners.magnitude(RAMP, distribution="erk"), IN_ALL),
    "admm": Case(pruners.admm(0.6, frequency=1, prunable=kernels, dual_every=2), of_layers(0.6)),
    "robust_admm": Case(pruners.robust_admm(0.6, frequency=1), of_layers(0.6)),
    "hydra": Case(pruners.hydra(0.6), of_layers(0.6)),
    "hydra structured": Case(pruners.hydra(0.6, structures=Structures(GROUPS, "block", block=(1, 1))), of_layers(0.6)),
    "edge_popup": Case(pruners.edge_popup(0.6), of_layers(0.6)),
    "s2ap": Case(pruners.s2ap(pruners.hydra(0.6)), of_layers(0.6)),
    "awp": Case(pruners.awp(pruners.magnitude(RAMP)), of_layers(0.6)),
    "harp": Case(pruners.harp(0.6, frequency=2), {}),
    "flying_bird": Case(pruners.flying_bird(0.6, num_steps=6, frequency=2, later_frequency=2), IN_ALL),
    "flying_bird_plus": Case(pruners.flying_bird_plus(0.6, num_steps=6, frequency=2, later_frequency=2), IN_ALL),
    "twin_rep": Case(pruners.twin_rep(0.6, begin_step=3), IN_ALL),
    "structured": Case(pruners.structured(RAMP, GROUPS, structure="block", block=(1, 1)), of_layers(0.6)),
    "quantized": Case(pruners.quantized(pruners.magnitude(RAMP), bits=4), of_layers(0.6)),
    "robust_bird": Case(pruners.robust_bird(0.6, frequency=2, prunable=kernels), IN_ALL),
}
IMAGES = jax.random.uniform(jax.random.key(1), (STEPS, B, D))


def recipe_of(name):
    return Recipe(optax.sgd(0.1, momentum=0.9), PRUNERS[name].pruner, budgets.none(), losses.clean())


def begun(name, seed=0):
    return beginning(name)(seed)


@functools.cache
def beginning(name):
    """One program instead of one for each operation."""
    given = {"images": IMAGES[0], "info": told(B)}
    return jax.jit(lambda seed: init_state(MODEL, *recipe_of(name), key=jax.random.key(seed), **given))


def batches(start=0):
    for images in IMAGES[start:]:
        yield Batch(images, jnp.arange(B) % K, jnp.arange(B), jnp.ones(B))


@functools.cache
def compiled(name):
    """One program for all steps of a pruner: a second trace is an error."""
    return jax.jit(once(make_train_step(MODEL.apply, *recipe_of(name))), donate_argnums=0)


def once(function):
    """A function that is traced once."""
    traces = []

    def traced(*given):
        assert not traces, "a second compile"
        traces.append(given)
        return function(*given)

    return traced


def on_the_host(state):
    """The leaves of a state as numpy arrays, as a checkpoint has them."""
    plain = state._replace(key=jax.random.key_data(state.key))
    return [np.array(leaf) for leaf in jax.tree.leaves(plain)]


def from_the_host(leaves, like):
    """The state of these leaves; only the structure of ``like`` matters."""
    plain = like._replace(key=jax.random.key_data(like.key))
    state = jax.tree.unflatten(jax.tree.structure(plain), [jnp.array(leaf) for leaf in leaves])
    return state._replace(key=jax.random.wrap_key_data(state.key))


@functools.cache
def seen(name):
    """What the host sees of the state before the first step and after every other."""
    state, hosts = begun(name), []
    hosts.append(on_the_host(state))
    for batch in batches():
        state, _ = compiled(name)(state, batch)
        hosts.append(on_the_host(state))
    return hosts


def at(name, step):
    return from_the_host(seen(name)[step], begun(name))


each = pytest.mark.parametrize("name", PRUNERS)


def test_every_pruner_is_in_the_list():
    made = {name for name in pruners.__all__ if inspect.isfunction(found := getattr(pruners, name)) and returns_one(found)}
    assert made == {name.partition(" ")[0] for name in PRUNERS}


def returns_one(function):
    return inspect.signature(function).return_annotation == "Pruner"


@each
def test_masks_have_the_structure_of_the_parameters_and_every_leaf_is_an_array(name):
    for step in (0, STEPS):
        state, params = at(name, step), MODEL.init(jax.random.key(0), IMAGES[0])[0]
        assert jax.tree.structure(state.prune.masks) == jax.tree.structure(params)
        shapes = {leaf: (mask.shape, mask.dtype) for leaf, mask in state.prune.masks.items()}
        assert shapes == {"in": ((D, H), bool), "out": ((H, K), bool), "bias": ((), bool)}
    begins = PRUNERS[name].pruner.init(jax.random.key(0), params)
    leaves = jax.tree.leaves(begins, is_leaf=lambda leaf: leaf is None)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)


@each
def test_what_is_computed_with_and_what_is_deployed_have_the_form_of_the_parameters(name):
    params, pruner, state = MODEL.init(jax.random.key(0), IMAGES[0])[0], PRUNERS[name].pruner, at(name, STEPS)
    effective, finished = pruner.effective(state.trainable, state.prune), bap.network(state, recipe_of(name))
    chex.assert_trees_all_equal_shapes_and_dtypes(effective, params, finished.params)
    for leaf, mask in finished.masks.items():
        np.testing.assert_array_equal(finished.params[leaf], jnp.where(mask, effective[leaf], 0.0))  # exactly
    chex.assert_trees_all_equal(finished.masks, state.prune.masks)
    assert pruner.penalty(state.step, state.trainable, state.prune).shape == ()


@each
def test_counts_are_exact_once_it_is_settled(name):
    pruner, kept, state = *PRUNERS[name][:2], at(name, STEPS)
    found = {"in all": int(count_kept(state.prune.masks))} if "in all" in kept else {}
    found |= {leaf: int(mask.sum()) for leaf, mask in state.prune.masks.items() if mask.ndim and "in all" not in kept}
    assert found == kept or not kept
    assert not kept or pruner.settled is None or bool(pruner.settled(state.step, state.prune))
    if pruner.settled is not None and not bool(pruner.settled(jnp.int32(0), at(name, 0).prune)):
        assert float(measured_sparsity(at(name, 0).prune.masks)) < 0.6


@each
def test_it_resumes_to_the_bit_from_what_the_host_saw(name):
    state = at(name, 3)
    for batch in batches(3):
        state, _ = compiled(name)(state, batch)
    for mine, theirs in zip(on_the_host(state), seen(name)[-1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@each
def test_nothing_changes_its_form_and_a_donated_state_is_given_away_whole(name):
    before = begun(name)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), before)
    after, _ = compiled(name)(before, next(batches()))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == shapes
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.trainable, before.prune)))


@each
def test_given_masks_are_an_upper_bound(name):
    given = {"images": IMAGES[0], "info": told(B), "masks": HALF}
    state = jax.jit(lambda key: init_state(MODEL, *recipe_of(name), key=key, **given))(jax.random.key(0))
    step = jax.jit(once(make_train_step(MODEL.apply, *recipe_of(name))))
    for batch in batches():
        state, _ = step(state, batch)
        masks = state.prune.masks
        assert not any(bool(jnp.any(masks[leaf] & ~limit)) for leaf, limit in HALF.items())
    params, _, _ = bap.network(state, recipe_of(name))
    assert all(bool(jnp.all(jnp.where(limit, True, params[leaf] == 0))) for leaf, limit in HALF.items())


@each
def test_copies_under_vmap_are_due_together_and_each_is_as_alone(name):
    pruner = PRUNERS[name].pruner
    states = [begun(name, seed=seed) for seed in range(2)]
    one = (states[0].trainable, states[0].prune)
    axes = (0, jax.tree.map(lambda _: 0, one[1]) if pruner.axes is None else pruner.axes(one[1]))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *((state.trainable, state.prune) for state in states))
    shared = lambda axis: axis is None  # noqa: E731
    batched = tuple(jax.tree.broadcast(axis, part, is_leaf=shared) for axis, part in zip(axes, one, strict=True))
    flags, leaves = jax.tree.leaves(batched, is_leaf=shared), zip(*map(jax.tree.leaves, (stacked, one)), strict=True)
    both = [single if flag is None else many for flag, (many, single) in zip(flags, leaves, strict=True)]
    together = jax.tree.unflatten(jax.tree.structure(one), both)
    jax.eval_shape(jax.vmap(pruner.due, in_axes=(None, axes[1]), out_axes=None), jnp.int32(4), together[1])  # or cond is none

    def changed(trainable, prune):
        trainable, prune = pruner.update(jax.random.key(2), jnp.int32(4), trainable, trainable, prune)[:2]
        return pruner.finish(pruner.project(trainable, prune), prune)

    def every(together, alone):
        return jax.vmap(changed, in_axes=axes)(*together), [changed(*state) for state in alone]

    many, alone = jax.jit(every)(together, [(state.trainable, state.prune) for state in states])
    for number, single in enumerate(alone):
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf, number=number: leaf[number], many), single)
