"""Shifts of scores and of weights: their length in each layer, their direction, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.pruners.dense import dense
from bap_jax.pruners.hydra import hydra
from bap_jax.pruners.sharpness import awp, s2ap
from bap_jax.pruners.twin_rep import twin_rep

KEY = jax.random.key(0)
PARAMS = {
    "a": jax.random.normal(jax.random.key(1), (6, 5)),
    "b": jax.random.normal(jax.random.key(2), (4, 5)),
    "bn": {"scale": jnp.ones(5), "bias": jnp.zeros(5)},
}


def test_s2ap_shifts_scores_and_chooses_the_mask_anew():
    pruner = s2ap(hydra(0.5), gamma=0.5)
    trainable, state = pruner.init(KEY, PARAMS)

    def loss(trainable):
        return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves(pruner.effective(trainable, state)))

    gradients = jax.grad(loss)(trainable)
    shifted = pruner.ascend(trainable, gradients, state)
    for name in "ab":
        shift = shifted["scores"][name] - trainable["scores"][name]
        assert float(jnp.linalg.norm(shift)) == pytest.approx(0.5 * float(jnp.linalg.norm(trainable["scores"][name])), rel=1e-4)
        along = jnp.sum(shift * gradients["scores"][name]) / jnp.linalg.norm(shift) / jnp.linalg.norm(gradients["scores"][name])
        assert float(along) == pytest.approx(1, rel=1e-4)
    jax.tree.map(np.testing.assert_array_equal, shifted["weights"], trainable["weights"])
    before, after = (pruner.effective(which, state)["a"] != 0 for which in (trainable, shifted))
    assert int(before.sum()) == int(after.sum()) == 15 and bool((before != after).any())


def test_awp_shifts_kernels_alone():
    pruner = awp(dense())
    weights, state = pruner.init(KEY, PARAMS)
    shifted = pruner.ascend(weights, jax.tree.map(jnp.ones_like, weights), state)
    assert float(jnp.linalg.norm(shifted["a"] - weights["a"]) / jnp.linalg.norm(weights["a"])) == pytest.approx(5e-3, rel=1e-3)
    np.testing.assert_array_equal(shifted["bn"]["scale"], weights["bn"]["scale"])
    twins = awp(twin_rep(0.5, begin_step=0))
    trainable, state = twins.init(KEY, PARAMS)
    shifted = twins.ascend(trainable, jax.tree.map(jnp.ones_like, trainable), state)
    assert bool((shifted["weights"]["a"] != trainable["weights"]["a"]).any())
    jax.tree.map(np.testing.assert_array_equal, shifted["scores"], trainable["scores"])


def test_no_gradient_is_no_shift():
    pruner = awp(dense())
    weights, state = pruner.init(KEY, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, pruner.ascend(weights, jax.tree.map(jnp.zeros_like, weights), state), weights)


def test_refusals():
    with pytest.raises(SettingError, match="gamma = 0"):
        s2ap(hydra(0.5), gamma=0)
    with pytest.raises(SettingError, match="ascend"):
        awp(s2ap(hydra(0.5)))
    for pruner, named in ((s2ap(dense()), "scores"), (awp(hydra(0.5)), "kernels")):
        trainable, state = pruner.init(KEY, PARAMS)
        with pytest.raises(SettingError, match=named):
            pruner.ascend(trainable, trainable, state)
