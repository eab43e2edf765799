"""Masks chosen once: which weights, in a chain, and at least one of every layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.channels import Groups, Layer
from bap_jax.pruners import at_start

RANDOM = np.random.RandomState(0)
PARAMS = {"a": jnp.asarray(RANDOM.randn(6, 8), jnp.float32), "b": jnp.asarray(RANDOM.randn(8, 3), jnp.float32)}
GROUPS = Groups((), (Layer("a", 1, 0, free_inputs=False), Layer("b", 1, 0, free_outputs=False)))
KEY = jax.random.key(3)


def masks_of(sparsity, masks=None, **options):
    weights, state = at_start(sparsity, GROUPS, **options).init(KEY, PARAMS, masks)
    for name, mask in state.masks.items():
        np.testing.assert_array_equal(weights[name], np.where(mask, PARAMS[name], 0))
    return {name: np.asarray(mask) for name, mask in state.masks.items()}


def largest(values, count):
    """The smallest of the ``count`` largest."""
    return np.sort(np.abs(np.asarray(values)).ravel())[-count]


def test_single_weights_by_magnitude():
    local = masks_of(0.75)
    for name, count in (("a", 12), ("b", 6)):
        np.testing.assert_array_equal(local[name], np.abs(PARAMS[name]) >= largest(PARAMS[name], count))
    every = masks_of(0.75, ranking="global")
    threshold = largest(np.concatenate([np.ravel(leaf) for leaf in PARAMS.values()]), 18)
    np.testing.assert_array_equal(every["a"], np.abs(PARAMS["a"]) >= threshold)
    assert every["a"].sum() + every["b"].sum() == 18


def test_at_least_one_of_every_layer_stays_unless_asked_otherwise():
    assert masks_of(1.0, ranking="global")["b"].sum() == 1
    assert masks_of(1.0, ranking="global", keep_one=False)["b"].sum() == 0


@pytest.mark.parametrize("options", [
    {}, {"ranking": "global"}, {"criterion": "random"}, {"structure": "filter"}, {"structure": "kernel", "criterion": "mean"},
])  # fmt: skip
def test_a_chain_prunes_what_is_left(options):
    """The share is of all; what the network before it has pruned stays pruned, and counts."""
    first = masks_of(0.5, **options)
    second = masks_of(0.75, first, **options)
    for name in first:
        assert not (second[name] & ~first[name]).any()
    kept = sum(mask.sum() for mask in second.values()) if options.get("structure") != "filter" else second["a"].any(0).sum() * 9
    assert kept == 18
    if options.get("criterion") != "random":  # by magnitude the way there does not matter, as no weight moved
        direct = masks_of(0.75, **options)
        for name in first:
            np.testing.assert_array_equal(second[name], direct[name])


def test_random_ones_do_not_look_at_weights():
    one = masks_of(0.5, criterion="random")
    other = at_start(0.5, GROUPS, criterion="random").init(KEY, jax.tree.map(jnp.zeros_like, PARAMS))[1].masks
    np.testing.assert_array_equal(one["a"], other["a"])
    another = at_start(0.5, GROUPS, criterion="random").init(jax.random.key(4), PARAMS)[1].masks
    assert (one["a"] != np.asarray(another["a"])).any()


@pytest.mark.parametrize(("name", "options"), [
    ("sparsity", {"sparsity": 1.5}), ("structure", {"structure": "weights"}), ("structure", {"scope": "coupled"}),
    ("criterion", {"criterion": "batch_norm"}),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(name, options):
    with pytest.raises(SettingError) as error:
        at_start(**{"sparsity": 0.5, "groups": GROUPS} | options)
    assert error.value.name == name
