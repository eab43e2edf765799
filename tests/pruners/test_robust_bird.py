"""Robust Bird: masks are drawn when the newest is near each of the four before, and not sooner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.pruners.robust_bird import drawn, robust_bird

KEY = jax.random.key(0)


def weights_of(order):
    """A kernel whose largest weights are where it is told, and a dense layer that takes no part."""
    return {"conv": jnp.asarray(order, jnp.float32).reshape(1, 1, 5, 5), "fc": jnp.ones((2, 2))}


def test_it_is_drawn_when_the_newest_differs_little_from_all_four_before():
    pruner = robust_bird(0.8, frequency=4)
    base = np.arange(25.0)
    swapped = base.copy()
    swapped[[20, 19]] = base[[19, 20]]  # one of five kept weights changes: 2 of 25 entries differ, 8 %
    more = base.copy()
    more[[20, 21, 22, 16, 17, 18]] = base[[16, 17, 18, 20, 21, 22]]  # three change: 24 %
    params, state = pruner.init(KEY, weights_of(base))
    assert [step for step in range(10) if pruner.due(step, state)] == [3, 7]
    update = jax.jit(pruner.update)
    story = [(more, 0.24), (base, 0.24), (base, 0.24), (base, 0.24), (swapped, 0.24), (base, 0.08)]
    for epoch, (order, distance) in enumerate(story):
        params, state = update(KEY, jnp.int32(4 * epoch + 3), weights_of(order), None, state)
        assert float(state.distance) == pytest.approx(distance)
        assert drawn(state) == (epoch == 5)
    cut, masks = pruner.finish(params, state)
    assert np.flatnonzero(masks["conv"]).tolist() == [20, 21, 22, 23, 24] and masks["fc"].shape == ()
    assert int((cut["conv"] != 0).sum()) == 5 and int((params["conv"] != 0).sum()) == 24  # weight 0 of the story is 0
    _, later = update(KEY, jnp.int32(31), weights_of(more), None, state)
    np.testing.assert_array_equal(later.masks["conv"], masks["conv"])  # what is drawn stays


def test_given_masks_bound_it():
    bound = {"conv": (jnp.arange(25) % 2 == 0).reshape(1, 1, 5, 5), "fc": jnp.bool_(True)}
    pruner = robust_bird(0.8, frequency=4)
    _, state = pruner.init(KEY, weights_of(np.arange(25)), bound)
    assert np.flatnonzero(state.masks["conv"]).tolist() == [16, 18, 20, 22, 24]


@pytest.mark.parametrize("wrong", [{"sparsity": 2}, {"frequency": 0}, {"tolerance": 1.5}], ids=str)
def test_refusals(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        robust_bird(**{"sparsity": 0.5, "frequency": 3} | wrong)
