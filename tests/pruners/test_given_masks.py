"""A pruner that begins with given masks: they are an upper bound, counts stay exact, and a layer never gets denser."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax import pruners
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import masks_from_scores
from bap_jax.mathematics.schedules import Ramp, constant, gradual, iterative, one_shot

KEY = jax.random.key(1)
SHAPES = {"a": (10, 20), "b": (8, 5), "c": (4, 5)}
KEPT_AT_FIRST = {"a": 100, "b": 4, "c": 20}  # sparsities 0.5, 0.9 and 0


def drawn(seed):
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()} | {"bias": jnp.ones(3)}


def begun_with():
    random, masks = np.random.default_rng(5), {"bias": jnp.bool_(True)}
    for name, shape in SHAPES.items():
        flat = np.zeros(np.prod(shape), bool)
        flat[random.permutation(flat.size)[: KEPT_AT_FIRST[name]]] = True
        masks[name] = jnp.asarray(flat.reshape(shape))
    return masks


def ramped(pruner, masks, num_steps):
    """The masks after every step, the weights being drawn anew at each: whatever is pruned would like to return."""
    weights, state = pruner.init(KEY, drawn(0), masks)
    update = jax.jit(pruner.update)
    yield weights, state
    for step in range(num_steps):
        weights = drawn(100 + step)
        if pruner.due(jnp.int32(step), state):
            weights, state = update(KEY, jnp.int32(step), weights, None, state)
        yield pruner.project(weights, state), state


def counts(masks):
    return {name: int(masks[name].sum()) for name in SHAPES}


def within(masks, bound):
    return all(bool(jnp.all(masks[name] <= bound[name])) for name in SHAPES)


OPTIONS = [{}, {"distribution": "erk"}, {"scope": "global"}]


@pytest.mark.parametrize("options", OPTIONS, ids=["uniform", "erk", "global"])
@pytest.mark.parametrize("schedule", [gradual, one_shot, iterative, constant])
def test_no_mask_of_a_whole_ramp_keeps_what_the_given_masks_prune(schedule, options):
    bound, seen = begun_with(), []
    for weights, state in ramped(pruners.magnitude(Ramp(0.0, 0.9, 1, 9, 2), schedule=schedule, **options), bound, 12):
        assert within(state.masks, bound)
        assert all(bool(jnp.all(jnp.where(state.masks[name], True, weights[name] == 0))) for name in SHAPES)
        seen.append(counts(state.masks))
    assert seen[0] == KEPT_AT_FIRST
    total = sum(seen[-1].values())
    assert total == 26 if options else seen[-1] == {"a": 20, "b": 4, "c": 2}


def test_a_layer_follows_the_ramp_from_its_own_sparsity():
    """The cubic of Zhu and Gupta between what each mask measures and the end, and the largest of what may be kept are kept."""
    bound, pruner = begun_with(), pruners.magnitude(Ramp(0.0, 0.8, 0, 10, 1))
    for step, (_, state) in enumerate(itertools.islice(ramped(pruner, bound, 11), 1, None)):
        left = (1 - min(Fraction(step, 10), 1)) ** 3
        for name, shape in SHAPES.items():
            size, end = int(np.prod(shape)), Fraction(8, 10)
            begin = 1 - Fraction(KEPT_AT_FIRST[name], size)
            expected = min(round(size * (1 - (end + (begin - end) * left))), KEPT_AT_FIRST[name])
            assert int(state.masks[name].sum()) == expected, (step, name)
            allowed = np.where(bound[name], np.abs(drawn(100 + step)[name]), -1).ravel()
            largest = np.zeros(size, bool)
            largest[np.argsort(-allowed, kind="stable")[:expected]] = True
            np.testing.assert_array_equal(np.ravel(state.masks[name]), largest)


def test_an_initial_sparsity_above_what_the_masks_measure_counts():
    pruner = pruners.magnitude(Ramp(0.6, 0.8, 0, 10, 1))
    _, (_, state) = itertools.islice(ramped(pruner, begun_with(), 1), 2)
    assert counts(state.masks) == {"a": 80, "b": 4, "c": 8}


def test_ties_go_to_the_lower_index_among_the_weights_that_may_be_kept():
    bound = {"w": jnp.array([[False, True, False, True, True]])}
    zeros = {"w": jnp.zeros((1, 5))}
    assert masks_from_scores(zeros, 0.6, within=bound)["w"].tolist() == [[False, True, False, True, False]]
    assert masks_from_scores(zeros, 0.2, within=bound)["w"].tolist() == bound["w"].tolist()


def test_without_masks_the_state_and_the_update_are_what_they_were():
    """Nothing of a bound is in the step of a run that begins with new weights."""
    pruner, params = pruners.magnitude(Ramp(0.0, 0.9, 0, 9, 2)), drawn(0)
    for state in (pruner.init(KEY, params)[1], pruner.init(KEY, params, None)[1]):
        assert type(state) is pruners.MagnitudeState
    capped = pruner.init(KEY, params, begun_with())[1]
    assert type(capped) is pruners.CappedState

    def length(state):
        return len(jax.make_jaxpr(pruner.update)(KEY, jnp.int32(0), params, None, state).jaxpr.eqns)

    plain = jax.make_jaxpr(lambda p: masks_from_scores(jax.tree.map(jnp.abs, p), jnp.float32(0.5)))(params)
    assert length(pruner.init(KEY, params)[1]) < length(capped)
    assert "-inf" not in str(plain)


def test_dense_keeps_given_masks_as_they_are():
    pruner, bound = pruners.dense(), begun_with()
    weights, state = pruner.init(KEY, drawn(0), bound)
    assert not pruner.due(jnp.int32(0), state)
    moved = pruner.project(jax.tree.map(lambda leaf: leaf + 1, weights), state)
    params, masks = pruner.finish(moved, state)
    assert {name: int((params[name] != 0).sum()) for name in SHAPES} == KEPT_AT_FIRST
    jax.tree.map(np.testing.assert_array_equal, masks, bound)
    same = pruner.init(KEY, drawn(0))[1]
    assert type(same) is pruners.DenseState and counts(same.masks) == {name: int(np.prod(s)) for name, s in SHAPES.items()}


@pytest.mark.parametrize("pruner", [pruners.dense(), pruners.magnitude(Ramp(0.0, 0.9, 0, 9, 2))], ids=["dense", "magnitude"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"a": jnp.ones((2, 2), bool)}, "masks/a"),
        ({"a": jnp.ones((10, 20))}, "masks/a"),
        ({"bias": jnp.zeros(3, bool)}, "masks/bias"),
    ],
    ids=["shape", "type", "not prunable"],
)
def test_masks_that_do_not_fit_are_refused_by_name(pruner, change, named):
    with pytest.raises(SettingError, match=named):
        pruner.init(KEY, drawn(0), begun_with() | change)
