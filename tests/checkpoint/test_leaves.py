"""Leaves as text."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.checkpoint.leaves import as_target, check_layout, describe
from bap_jax.errors import CheckpointError, SettingError


class Pair(NamedTuple):
    first: object
    second: object


def test_every_kind_of_leaf():
    tree = {"a": Pair([jnp.zeros((2, 3), jnp.bfloat16), np.bool_(True)], jax.random.key(0)), "b": [1, 0.5, False], "c": ((), {})}
    assert describe(tree) == {
        "a/first/0": "bfloat16[2,3]",
        "a/first/1": "bool[]",
        "a/second": "key<fry>[]",
        "b/0": "int",
        "b/1": "float",
        "b/2": "bool",
    }
    assert describe(jax.eval_shape(lambda: tree["a"].second)) == {"": "key<fry>[]"}


def test_what_cannot_be_saved_is_named():
    with pytest.raises(SettingError, match="network/params/name = 'x': expected an array"):
        describe({"params": {"name": "x"}}, "network")


def test_the_first_difference_in_the_targets_order():
    stored, wanted = {"a": "int", "b": "int", "z": "int"}, {"b": "float", "a": "float"}
    with pytest.raises(CheckpointError, match="here does not fit at b: the checkpoint has int, expected float"):
        check_layout(stored, wanted, "here")
    check_layout(stored, dict(reversed(stored.items())), "here")


def test_a_target_keeps_its_places():
    here, there = jax.devices()[0], jax.devices()[3]
    state = {"a": jax.device_put(jnp.ones(2), there), "b": np.ones(2), "c": 3, "d": np.float32(1)}
    target = as_target(state)
    assert target["a"].sharding.device_set == {there}
    assert type(target["b"]) is np.ndarray and target["c"] == 3 and target["d"].shape == ()
    assert as_target(jax.eval_shape(lambda: jnp.ones(2))).sharding.device_set == {here}
    sharding = jax.sharding.SingleDeviceSharding(there)
    assert as_target(jnp.ones(2), sharding).sharding == sharding
