"""HO-FMN runs what ranks first, and ranks by what FMN finds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bap_jax.attacks.fmn import fmn
from bap_jax.attacks.ho_fmn import FmnConfiguration, default_configurations, ho_fmn, rank_configurations
from bap_jax.errors import SettingError
from bap_jax.mathematics import cross_entropy, dlr, per_example_norm

_random = np.random.RandomState(5)
HIDDEN = jnp.asarray(_random.randn(12, 16), jnp.float32)
OUT = jnp.asarray(_random.randn(16, 4), jnp.float32)
IMAGES = jnp.asarray(_random.rand(7, 12), jnp.float32)


def network(images):
    return jnp.tanh((images - 0.5) @ HIDDEN) @ OUT


LABELS = jnp.argmax(network(IMAGES), axis=1)
GRID = (
    FmnConfiguration(step_size=1e-6),
    FmnConfiguration("cross_entropy", "adam", "constant", 0.02, momentum=0.9),
    FmnConfiguration("dlr", "adamax", "cosine", 0.1, momentum=0.8, weight_decay=0.1),
    FmnConfiguration("margin", "sgd", "cosine", 0.05, sign=True, momentum=0.5),
)


def cosine(first):
    return optax.cosine_decay_schedule(first, 40)


def test_every_median_is_that_of_fmn_with_the_same_optax_rules():
    with jax.enable_x64(True):  # in float32 rounding decides who crosses first
        check_medians(jnp.asarray(np.asarray(IMAGES), float))


def check_medians(images):
    labels = LABELS.at[0].set((LABELS[0] + 1) % 4)  # misclassified already: left out of six
    medians = jax.jit(lambda: rank_configurations(network, None, images, labels, configurations=GRID, num_steps=40))()
    decayed = optax.chain(optax.add_decayed_weights(0.1), optax.scale_by_adamax(0.8, 0.999))
    signed = optax.chain(optax.scale_by_sign(), optax.trace(0.5))
    rules = [
        {"step_size_schedule": cosine(1e-6)},
        {"objective": cross_entropy, "optimizer": optax.scale_by_adam(0.9), "step_size_schedule": optax.constant_schedule(0.02)},
        {"objective": dlr, "optimizer": decayed, "step_size_schedule": cosine(0.1)},
        {"optimizer": signed, "step_size_schedule": cosine(0.05)},
    ]
    expected = []
    for rule in rules:
        result = fmn(network, None, images, labels, num_steps=40, linear_estimate=False, **rule)
        distance = jnp.where(result.found, per_example_norm(result.images - images, "linf"), jnp.inf)
        expected.append(jnp.sort(distance[1:])[2])
    np.testing.assert_allclose(medians, jnp.stack(expected), rtol=1e-3)
    assert not jnp.isfinite(medians[0]) and len(set(medians[1:].tolist())) == 3


@pytest.mark.parametrize("configuration, rule", [
    (FmnConfiguration(momentum=0.5, weight_decay=0.2), optax.chain(optax.add_decayed_weights(0.2), optax.trace(0.5))),
    (FmnConfiguration(optimizer="adam", momentum=0.8, second_momentum=0.9), optax.scale_by_adam(0.8, 0.9)),
    (FmnConfiguration("dlr", "adamax", momentum=0.8, sign=True), optax.chain(optax.scale_by_sign(), optax.scale_by_adamax(0.8))),
])  # fmt: skip
def test_a_configuration_takes_the_steps_of_optax(configuration, rule):
    ours, delta = configuration.settings(10)["optimizer"], jnp.asarray([0.1, -0.2, 0.3])
    states = [ours.init(delta), rule.init(delta)]
    for gradient in jnp.asarray(np.random.RandomState(0).randn(5, 3), jnp.float32):
        step, states[0] = ours.update(gradient, states[0], delta, value=jnp.float32(1))
        expected, states[1] = rule.update(gradient, states[1], delta)
        np.testing.assert_allclose(step, expected, rtol=1e-5)


def test_it_attacks_with_the_winner():
    trial = {"configurations": GRID, "norm": "linf"}
    medians = rank_configurations(network, None, IMAGES[:5], LABELS[:5], num_steps=20, **trial)
    run = jax.jit(lambda: ho_fmn(network, None, IMAGES, LABELS, num_steps=60, num_trial_steps=20, num_trial_examples=5, **trial))
    winner = GRID[int(jnp.argmin(medians))]
    expected = fmn(network, None, IMAGES, LABELS, num_steps=60, **winner.settings(60))
    np.testing.assert_allclose(run().images, expected.images, atol=1e-5)
    assert run().loss.shape == (60, 7)


def test_a_plateau_halves_the_step_size_of_a_row_that_makes_no_progress():
    flat = FmnConfiguration(schedule="plateau", factor=0.5, patience=1).settings(10)["optimizer"]
    state, one, scales = flat.init(jnp.zeros(2)), jnp.ones(2), []
    for value in (3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0):
        _, state = flat.update(one, state, jnp.zeros(2), value=jnp.float32(value))
        scales.append(float(state.scale))
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_the_default_grid_is_never_worse_in_the_trial_than_fmns_own_setting():
    grid = default_configurations("l2")
    assert len(set(grid)) == len(grid)
    medians = rank_configurations(network, None, IMAGES, LABELS, norm="l2", num_steps=30)
    assert medians.shape == (len(grid),) and medians.min() <= medians[0] < jnp.inf


@pytest.mark.parametrize("change, name", [
    ({"configurations": ()}, "configurations"),
    ({"configurations": (FmnConfiguration("hinge"),)}, "objective"),
    ({"configurations": (FmnConfiguration(optimizer="lion"),)}, "optimizer"),
    ({"configurations": (FmnConfiguration(schedule="step"),)}, "schedule"),
    ({"configurations": (FmnConfiguration(step_size=0.0),)}, "step_size"),
    ({"configurations": (FmnConfiguration(momentum=1.0),)}, "momentum"),
    ({"configurations": (FmnConfiguration(factor=1.0),)}, "factor"),
    ({"num_trial_steps": 0}, "num_trial_steps"), ({"num_trial_examples": 0}, "num_trial_examples"),
])  # fmt: skip
def test_what_cannot_be_is_refused(change, name):
    with pytest.raises(SettingError) as error:
        ho_fmn(network, None, IMAGES, LABELS, **change)
    assert error.value.name == name
