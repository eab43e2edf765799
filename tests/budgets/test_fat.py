"""FAT on a line, where it is known at which step an attack succeeds; and the PGD that it and TRADES share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told import told

from bap_jax import budgets
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.objectives import kl_divergence
from bap_jax.types import Batch

KEYS = jax.random.split(jax.random.key(0), 4)
IMAGES = jnp.array([[0.55], [0.62], [0.95], [0.4]])  # with steps of 0.1: over the edge after 1, 2 and 5 steps; wrong already
LABELS = jnp.zeros(4, jnp.int32)


def logits_fn(images):
    """Class 0 above 0.5."""
    return jnp.concatenate([images - 0.5, 0.5 - images], axis=-1)


def walk(**settings):
    settings = {"epsilon": 0.4, "relative_step_size": 0.25, "start": "normal", "num_steps": 4, **settings}
    return jax.jit(lambda images: budgets.friendly_pgd(logits_fn, KEYS, images, LABELS, **settings))(IMAGES)


@pytest.mark.parametrize(("tau", "steps"), [(0, [1, 2, 4, 0]), (1, [2, 3, 4, 1]), (2, [3, 4, 4, 2]), (None, [4, 4, 4, 4])])
def test_an_example_stops_tau_tests_after_its_first_misclassification(tau, steps):
    result = walk(tau=tau)
    expected = np.maximum(np.asarray(IMAGES)[:, 0] - 0.1 * np.array(steps), IMAGES[:, 0] - 0.4)
    np.testing.assert_allclose(result.images[:, 0], np.maximum(expected, 0), atol=0.005)  # a start within 0.005
    assert result.found.tolist() == [True, True, False, True] and result.loss.shape == (4, 4)


def test_tau_may_be_traced_and_rises_with_the_steps():
    budget = budgets.fat(tau_steps=(10, 20), epsilon=0.4, relative_step_size=0.25, num_steps=8, noise=0.0)
    given = Batch(jnp.full((16, 1), 0.45), jnp.zeros(16, jnp.int32), jnp.arange(16), jnp.ones(16))
    keys, state = jax.random.split(jax.random.key(1), 16), budget.init(told(16))
    perturb = jax.jit(lambda step: budget.perturb(keys, logits_fn, given, state, step=step, gather=lambda x: x))
    found = [perturb(jnp.int32(step)) for step in (0, 9, 10, 19, 20, 99)]
    taus = [int(after.tau) for _, after in found]
    assert taus == [0, 0, 1, 1, 2, 2]
    ends = np.stack([adversarial.images[:, 0] for adversarial, _ in found])
    wrong = (ends[0] < 0.5) & (ends[0] > 0.3)  # with room in the ball for two steps more
    assert wrong.sum() >= 3
    np.testing.assert_allclose((ends[0] - ends)[:, wrong], np.outer(0.1 * np.array(taus), np.ones(wrong.sum())), atol=1e-5)


def test_epsilon_is_how_far_each_example_went_and_within_the_ball():
    budget = budgets.fat(tau_steps=(), epsilon=0.3, noise=0.01)
    given = Batch(IMAGES, LABELS, jnp.arange(4), jnp.ones(4))
    state = budget.init(told(4))
    perturb = jax.jit(lambda given: budget.perturb(KEYS, logits_fn, given, state, step=jnp.int32(0), gather=lambda x: x))
    adversarial, _ = perturb(given)
    np.testing.assert_allclose(adversarial.epsilon, per_example_norm(adversarial.images - IMAGES, "linf"))
    assert bool(jnp.all(adversarial.epsilon <= 0.3 + 1e-6))


def test_noise_moves_every_step():
    still, noisy = walk(), walk(noise=0.01)
    moved = jnp.abs(still.images - noisy.images)
    assert bool(jnp.any(moved > 1e-4)) and bool(jnp.all(moved < 0.2))


@pytest.mark.parametrize("norm", ["linf", "l2", "rms"])
def test_kl_rises_from_a_start_beside_the_image_and_stays_in_ball_and_box(norm):
    weights = jax.random.normal(jax.random.key(1), (8, 5))
    network = lambda x: 3 * x @ weights  # noqa: E731
    images = jax.random.uniform(jax.random.key(2), (4, 8))
    labels = jnp.argmax(network(images), -1)
    result = jax.jit(
        lambda images: budgets.friendly_pgd(
            network, KEYS, images, labels, epsilon=0.1, norm=norm, objective="kl", start="normal", num_steps=4
        )
    )(images)
    divergence = kl_divergence(network(images), network(result.images))
    assert bool(jnp.all(result.loss[0] < 1e-2)) and bool(jnp.all(divergence > 10 * result.loss[0]))
    assert bool(jnp.all(per_example_norm(result.images - images, norm) <= 0.1 + 1e-6))
    assert bool(jnp.all((result.images >= 0) & (result.images <= 1)))


def test_kl_finds_the_largest_divergence_on_a_line():
    """KL grows with the distance on either side of the image: in one dimension an end of the ball is the maximum."""
    network = lambda x: jnp.concatenate([4 * x, -4 * x], axis=-1)  # noqa: E731
    attack = jax.jit(lambda x: budgets.friendly_pgd(network, KEYS, x, LABELS, epsilon=0.05, objective="kl", start="normal"))
    result = attack(IMAGES)
    ends = jnp.stack([kl_divergence(network(IMAGES), network(IMAGES + shift)) for shift in (-0.05, 0.05)])
    reached = kl_divergence(network(IMAGES), network(result.images))
    assert bool(jnp.all(jnp.min(jnp.abs(ends - reached[None]), axis=0) < 1e-6))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: budgets.fat(tau_steps=(), epsilon=-1.0), "epsilon = -1.0"),
        (lambda: budgets.fat(tau_steps=(5, 3)), "tau_steps"),
        (lambda: budgets.fat(tau_steps=(-1,)), "tau_steps"),
        (lambda: walk(norm="l1"), "norm = 'l1'"),
        (lambda: walk(num_steps=0), "num_steps = 0"),
        (lambda: walk(relative_step_size=0.0), "relative_step_size = 0.0"),
        (lambda: walk(noise=-1.0), "noise = -1.0"),
        (lambda: walk(start="zero"), "start = 'zero'"),
    ],
)
def test_refusals(make, name):
    with pytest.raises(SettingError, match=name):
        make()
