"""Optimality against values of AttackBench's own code, and passes counted against those that attacks are known to make.

RECORDED: attackbenchlib 2.0.2, ``attackbench.metrics.distances.eval_optimality(distances, best)`` of the arrays of ``draw``
below, rounded to 9 digits; the clean accuracy estimated from ``best``.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks import apgd, ddn, fmn, pgd
from bap_jax.errors import SettingError
from bap_jax.evaluation import best_distances, count_passes, global_optimality, local_optimality, steps_within
from bap_jax.evaluation.passes import Passes
from bap_jax.types import AttackResult

RECORDED = {
    0: (0.966612358, 0.771437787, 0.606638934),
    1: (0.997682717, 0.818811379, 0.666827301),
    2: (0.997939925, 0.782003183, 0.60401677),
}


def draw(seed):
    """Distances of three attacks on 40 images: some wrong already, some never found."""
    random = np.random.RandomState(seed)
    truth = random.gamma(2.0, 0.1, 40) * (random.rand(40) > 0.1)
    attacks = [truth * (1 + scale * random.rand(40)) for scale in (0.1, 0.5, 2.0)]
    for values, share in zip(attacks, (0.05, 0.1, 0.2), strict=True):
        values[(random.rand(40) < share) & (truth > 0)] = np.inf
    return attacks


@pytest.mark.parametrize("seed", range(3))
def test_local_optimality_is_that_of_attackbench(seed):
    attacks = draw(seed)
    best = best_distances(attacks)
    for values, expected in zip(attacks, RECORDED[seed], strict=True):
        assert local_optimality(values, best) == pytest.approx(expected, abs=1e-8)
    assert local_optimality(best, best) == 1.0


def test_the_ends_of_the_scale():
    best = np.array([0.0, 0.1, 0.2, 0.3])
    assert local_optimality(np.where(best > 0, np.inf, 0), best) == 0.0
    assert math.isnan(local_optimality(best, [np.inf] * 4)) and math.isnan(local_optimality([0.2, 0.2], [0.2, 0.2]))
    assert global_optimality([0.5, 1.0]) == 0.75 and math.isnan(global_optimality([]))
    np.testing.assert_array_equal(best_distances({"a": best, "b": best[::-1]}), [0, 0.1, 0.1, 0])
    for distances, other in (([0.1], best), ([], []), ([0.1, np.nan], [0.1, 0.1]), ([0.1, 0.1], [-0.1, 0.1])):
        with pytest.raises(SettingError, match=r"distances|best"):
            local_optimality(distances, other)
    with pytest.raises(SettingError, match="distances"):
        best_distances([])


IMAGES = jnp.asarray(np.random.RandomState(0).rand(3, 8), jnp.float32)
WEIGHTS = jnp.asarray(np.random.RandomState(1).randn(8, 4), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 3)


def linear(images):
    return images @ WEIGHTS


LABELS = jnp.argmax(linear(IMAGES), axis=1)


@pytest.mark.parametrize(
    ("attack", "forward", "backward"),
    [
        (functools.partial(pgd, epsilon=0.1, num_steps=5), 6, 5),
        (functools.partial(pgd, epsilon=0.1, num_steps=5, restarts=2), 12, 10),
        (functools.partial(apgd, epsilon=0.1, num_steps=7), 8, 8),
    ],
)
def test_passes_are_those_that_the_attack_makes(attack, forward, backward):
    result, passes = count_passes(attack, linear, KEYS, IMAGES, LABELS)
    assert passes == (forward, backward) and passes.total == forward + backward
    plain = attack(linear, KEYS, IMAGES, LABELS)
    np.testing.assert_array_equal(result.images, plain.images)  # counting changes nothing


def test_a_gradient_of_every_class_is_a_pass_for_each():
    def attack(logits_fn, keys, images, labels):
        rows = jax.jacrev(lambda x: logits_fn(x).sum(axis=0))(images)  # one backward pass under vmap for each of four classes
        return AttackResult(images + rows.sum(axis=0), labels != labels, jnp.zeros((1, 3)))

    assert count_passes(attack, linear, KEYS, IMAGES, LABELS)[1] == (1, 4)


@pytest.mark.parametrize("attack", [ddn, functools.partial(fmn, norm="linf")])
def test_a_budget_cuts_the_steps(attack):
    def passes_of(steps):
        return count_passes(functools.partial(attack, num_steps=steps), linear, KEYS, IMAGES, LABELS)[1]

    steps = steps_within(50, passes_of)
    assert passes_of(steps).total <= 50 < passes_of(steps + 1).total


def test_what_no_budget_can_be_made_of():
    assert steps_within(3, lambda steps: Passes(steps + 1, steps)) == 1
    with pytest.raises(SettingError, match=r"budget = 2: expected at least 3 passes"):
        steps_within(2, lambda steps: Passes(steps + 1, steps))
    with pytest.raises(SettingError, match="early_stop"):
        steps_within(2000, lambda steps: Passes(min(steps, 3), min(steps, 3)))
