"""Flying Bird: counts of what is dropped and grown, where it grows, what begins at zero again, and when density moves."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.pruners.flying_bird import flying_bird, flying_bird_plus, size_balanced_counts

KEY = jax.random.key(0)
OPTIONS = {"num_steps": 100, "frequency": 10, "later_frequency": 20}


def network():
    keys = jax.random.split(KEY, 2)
    return {"a": jax.random.normal(keys[0], (20, 10)), "b": jax.random.normal(keys[1], (5, 8)), "bias": jnp.ones(8)}


def test_small_layers_are_denser_and_the_total_is_exact():
    sizes = [432, 36864, 640]
    counts = size_balanced_counts(sizes, 0.9)
    assert sum(counts) == round(sum(sizes) * 0.1)
    factors = [(n / count - 1) / n for n, count in zip(sizes, counts, strict=True)]  # density 1 / (f n + 1), one f for all
    np.testing.assert_allclose(factors, factors[1], rtol=2e-2)
    assert size_balanced_counts(sizes, 0.0) == sizes and size_balanced_counts(sizes, 1.0) == [0, 0, 0]
    state = jax.jit(flying_bird(0.8, **OPTIONS).init)(KEY, network())[1]
    assert sum(int(state.masks[name].sum()) for name in "ab") == 48 and state.masks["bias"].shape == ()


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_a_change_drops_the_smallest_and_grows_as_many_from_zero(growth):
    pruner = flying_bird(0.8, growth=growth, **OPTIONS)
    weights, state = jax.jit(pruner.init)(KEY, network())
    gradients = jax.tree.map(lambda w: jax.random.normal(jax.random.key(7), w.shape), weights)
    step = 30
    came, after, resets = jax.jit(pruner.update)(KEY, jnp.int32(step), weights, gradients, state)
    came = pruner.project(came, after)
    rate = 0.005 + 0.495 / 2 * (1 + math.cos(math.pi * step / 100))
    for name in "ab":
        before, mask, old = np.asarray(state.masks[name]), np.asarray(after.masks[name]), np.asarray(weights[name])
        kept = before.sum()
        dropped = math.ceil(rate * kept)
        assert mask.sum() == kept
        smallest = np.argsort(np.where(before, np.abs(old), np.inf), axis=None, kind="stable")[:dropped]
        survived = before.copy().ravel()
        survived[smallest] = False
        survived = survived.reshape(before.shape)
        assert (mask >= survived).all()
        grown = mask & ~survived
        assert grown.sum() == dropped
        np.testing.assert_array_equal(came[name], np.where(survived, old, 0))
        np.testing.assert_array_equal(resets[name], ~survived)
        if growth == "gradient":
            best = np.argsort(-np.where(survived, -1, np.abs(gradients[name])), axis=None, kind="stable")[:dropped]
            assert sorted(np.flatnonzero(grown)) == sorted(best)
    assert not resets["bias"] and (came["bias"] == 1).all()


def test_pruned_weights_have_no_gradient_and_changes_come_when_due():
    pruner = flying_bird(0.8, **OPTIONS)
    weights, state = jax.jit(pruner.init)(KEY, network())
    gradient = jax.grad(lambda w: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(pruner.effective(w, state))))(weights)
    np.testing.assert_array_equal(gradient["a"], state.masks["a"])
    assert [step for step in range(120) if pruner.due(jnp.int32(step), state)] == [10, 20, 30, 40, 60, 80]


def test_given_masks_bound_it():
    bound = {"a": jnp.arange(200).reshape(20, 10) % 3 == 0, "b": jnp.ones((5, 8), bool), "bias": jnp.bool_(True)}
    pruner = flying_bird(0.5, growth="random", **OPTIONS)
    _, state = jax.jit(pruner.init)(KEY, network(), bound)
    for step in (10, 20):
        _, state, _ = jax.jit(pruner.update)(jax.random.key(step), jnp.int32(step), network(), network(), state)
        assert bool((state.masks["a"] <= bound["a"]).all()) and int(state.masks["a"].sum()) == 67


def test_plus_moves_its_density_by_what_validation_says():
    pruner = flying_bird_plus(0.8, begin_validation=5, **OPTIONS)
    weights, state = jax.jit(pruner.init)(KEY, network())
    kept, update = int(state.masks["a"].sum()), jax.jit(pruner.update)
    overfits = [{"adversarial_accuracy": 0.5 + 0.01 * i, "validation_mean": 0.4, "validation_loss": 2 - i} for i in range(6)]
    worsens = [{"adversarial_accuracy": 0.5 - 0.01 * i, "validation_mean": 0.4, "validation_loss": 2 + i} for i in range(6)]
    moved = math.ceil(0.5 * kept)
    for story, expected in (
        (overfits, kept - math.ceil(1.4 * 0.5 * kept) + moved),
        (worsens, kept - moved + math.ceil(1.05 * moved)),
    ):
        now = state
        for i, measures in enumerate(story):
            assert not (now.drop_more or now.grow_more), i
            now = pruner.observe(now, measures)
        assert bool(now.drop_more) == (story is overfits) and bool(now.grow_more) == (story is worsens)
        _, after, _ = update(KEY, jnp.int32(0), weights, weights, now)
        assert abs(int(after.masks["a"].sum()) - expected) <= 1  # 1.4 · 0.5 in float32
        assert not (after.drop_more or after.grow_more)
    with pytest.raises(SettingError, match="validation_loss"):
        pruner.observe(state, {"adversarial_accuracy": 0.5, "validation_mean": 0.4})


@pytest.mark.parametrize("wrong", [{"frequency": 0}, {"growth": "none"}, {"drop": 2.0}, {"final_drop": 0.9}, {"sparsity": 2}])
def test_refusals(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        flying_bird(**{"sparsity": 0.5} | OPTIONS | wrong)
