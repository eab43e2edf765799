"""What an example gets that is misclassified already, whose margins the cutoff hears, and that the first way is still there."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told import told

from bap_jax import budgets
from bap_jax.attacks import pgd
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.types import Batch

FIRST = json.loads((Path(__file__).parent / "cutoff_scale_d991d9c.json").read_text(encoding="utf-8"))
WEIGHTS = jnp.array([[3, -2, 1], [-1, 2, -3], [2, 1, -2], [-2, -1, 3], [1, -3, 2], [-3, 2, 1]], jnp.float32)
IMAGES = jnp.array(FIRST["images_in_64ths"], jnp.float32) / 64  # sums of products are exact, in whatever order
LABELS = jnp.array(FIRST["labels"], jnp.int32)  # the second and the fifth are misclassified, the last is padding
WEIGHT = jnp.array([1.0, 1, 1, 1, 1, 0])
ATTACK = partial(pgd, norm="linf", num_steps=3, random_start=False)
WRONG = np.array([False, True, False, False, True, False])


def go(budget, state=None, weight=WEIGHT, labels=LABELS):
    batch = Batch(IMAGES, labels, jnp.arange(6), weight)
    keys, state = jax.random.split(jax.random.key(0), 6), budget.init(told(6)) if state is None else state
    act = jax.jit(lambda state: budget.perturb(keys, lambda x: x @ WEIGHTS, batch, state, step=jnp.int32(0), gather=lambda x: x))
    return act(state)


@pytest.mark.parametrize("case", sorted(FIRST["found"]))
def test_the_first_way_gives_what_it_gave_to_the_bit(case):
    """Recorded at d991d9c, where this was the only way: the ray, linear halving, nothing to wrong examples, a mean over all."""
    norm, steps, example, cutoff = case.split()
    search = budgets.pgd_search(norm=norm, num_steps=int(steps), path="ray", halving="linear")
    attack = partial(ATTACK, norm=norm) if example == "fresh" else None
    given = {"cutoff": budgets.parse_cutoff(cutoff), "norm": norm, "scale": 1.25, "wrong": "zero", "over": "all"}
    budget = budgets.cutoff_scale(search, attack, epsilon_max=1.0, **given)
    adversarial, state = go(budget)
    adversarial, state = go(budget, state._replace(scale=jnp.float32(1.0)))
    expected = FIRST["found"][case]
    assert np.asarray(adversarial.epsilon).tolist() == expected["epsilon"]
    assert np.asarray(adversarial.images).tolist() == expected["images"]
    assert float(state.cutoff) == (np.inf if expected["cutoff"] is None else expected["cutoff"])


@pytest.mark.parametrize(("wrong", "share"), [("cutoff", 1.0), ("zero", 0.0), ("floor:0.5", 0.5)])
@pytest.mark.parametrize("cutoff", ["mean", "constant:0.05", "quantile:0.5", "running-mean:0.5"])
def test_a_wrong_example_gets_its_share_of_the_scaled_cutoff(wrong, share, cutoff):
    budget = budgets.cutoff_scale(budgets.pgd_search(), ATTACK, wrong=wrong, cutoff=budgets.parse_cutoff(cutoff), scale=1.5)
    adversarial, state = go(budget)
    assert float(state.cutoff) > 0
    np.testing.assert_array_equal(adversarial.epsilon[WRONG], jnp.full(2, share) * (jnp.float32(1.5) * state.cutoff))
    assert bool(jnp.all(adversarial.epsilon[~WRONG] > 0))
    moved = jnp.max(jnp.abs(adversarial.images - IMAGES), axis=1)
    np.testing.assert_allclose(moved[WRONG], adversarial.epsilon[WRONG], rtol=1e-5)


@pytest.mark.parametrize(("norm", "path"), [("linf", "ball"), ("linf", "ray"), ("l2", "ball"), ("rms", "ball")])
def test_rescaled_a_wrong_example_goes_the_way_that_would_have_been_searched(norm, path):
    search = budgets.pgd_search(norm=norm, path=path)
    make = partial(budgets.cutoff_scale, search, None, norm=norm, epsilon_max=1.0, scale=0.5)
    size = lambda budget: per_example_norm(go(budget)[0].images - IMAGES, norm)  # noqa: E731
    state = go(make())[1]
    np.testing.assert_allclose(size(make())[WRONG], 0.5 * state.cutoff, rtol=1e-4)
    np.testing.assert_allclose(size(make(wrong="floor:0.5"))[WRONG], 0.25 * state.cutoff, rtol=1e-4)
    np.testing.assert_array_equal(go(make(wrong="zero"))[0].images[WRONG], IMAGES[WRONG])


@pytest.mark.parametrize("example", [ATTACK, None], ids=["fresh", "rescaled"])
def test_where_nothing_is_cut_a_wrong_example_gets_nothing(example):
    adversarial, _ = go(budgets.cutoff_scale(budgets.pgd_search(), example, cutoff=budgets.Cutoff("off")))
    assert adversarial.epsilon[WRONG].tolist() == [0.0, 0.0] and bool(jnp.all(jnp.isfinite(adversarial.images)))
    np.testing.assert_array_equal(adversarial.images[WRONG], IMAGES[WRONG])


def test_a_mean_over_the_right_leaves_the_zeros_of_the_wrong_out():
    over_all, over_right = (go(budgets.cutoff_scale(budgets.pgd_search(), ATTACK, over=over))[1] for over in ("all", "right"))
    assert float(over_right.cutoff) == pytest.approx(float(over_all.cutoff) * 5 / 3)  # three of the five real ones are right


def test_a_batch_with_nobody_to_hear_moves_no_running_mean():
    rule = budgets.parse_cutoff("running-mean:0.5")
    budget = budgets.cutoff_scale(budgets.pgd_search(), ATTACK, cutoff=rule, over="right")
    state = go(budget)[1]
    all_wrong = (jnp.argmax(IMAGES @ WEIGHTS, -1) + 1) % 3
    after = go(budget, state, labels=all_wrong.astype(jnp.int32))[1]
    assert float(after.cutoff) == float(state.cutoff) > 0 and int(after.running.num_batches) == 1


def test_deepfool_leaves_nobody_so_that_the_rule_changes_nothing():
    one, other = (
        go(budgets.cutoff_scale(budgets.deepfool_search(), None, norm="rms", scale=0.9, wrong=wrong, over=over))[0]
        for wrong, over in (("cutoff", "right"), ("zero", "all"))
    )
    np.testing.assert_array_equal(one.epsilon, other.epsilon)
    np.testing.assert_array_equal(one.images, other.images)
    assert float(one.epsilon[1]) > 0


def test_a_sweep_may_batch_the_share_of_the_wrong():
    budget = budgets.cutoff_scale(budgets.pgd_search(), ATTACK)
    states = jax.vmap(lambda share: budget.init(told(6))._replace(wrong=share))(jnp.array([0.0, 0.25, 1.0]))
    batch, keys = Batch(IMAGES, LABELS, jnp.arange(6), WEIGHT), jax.random.split(jax.random.key(0), 6)

    def act(state):
        return budget.perturb(keys, lambda x: x @ WEIGHTS, batch, state, step=jnp.int32(0), gather=lambda x: x)[0].epsilon

    found = jax.vmap(act)(states)
    np.testing.assert_allclose(found[1], go(budget, budget.init(told(6))._replace(wrong=jnp.float32(0.25)))[0].epsilon, rtol=1e-5)
    assert bool(jnp.all(found[:, 1] == jnp.array([0.0, 0.25, 1.0]) * found[2, 1]))


@pytest.mark.parametrize("text", ["none", "floor", "floor:x", "floor:1.5", "floor:-1", "cutoff:1", "floor:nan"])
def test_senseless_shares_are_refused(text):
    with pytest.raises(SettingError, match="wrong"):
        budgets.parse_wrong(text)


def test_senseless_budgets_are_refused():
    make = partial(budgets.cutoff_scale, budgets.pgd_search(), ATTACK)
    with pytest.raises(SettingError, match="over = 'left'"):
        make(over="left")
    with pytest.raises(SettingError, match=r"wrong = 'floor:0.5'.*cutoff off"):
        make(wrong="floor:0.5", cutoff=budgets.Cutoff("off"))
