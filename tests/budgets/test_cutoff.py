import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bap_jax.budgets import Cutoff, RunningMean, cutoff_scale_epsilon, cutoff_scale_perturbation, cutoff_value, parse_cutoff
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import per_example_norm

NORMS = jnp.array([0.0, 0.1, 0.3, 0.8, 5.0])
WEIGHT = jnp.array([1.0, 1.0, 1.0, 1.0, 0.0])  # the last is padding


@pytest.mark.parametrize(
    ("text", "expected"), [("mean", 0.3), ("quantile:0.5", 0.2), ("quantile:1", 0.8), ("constant:0.25", 0.25), ("off", np.inf)]
)
def test_the_radius_of_every_rule_leaves_padding_out(text, expected):
    radius, _ = cutoff_value(NORMS, WEIGHT, parse_cutoff(text), RunningMean.empty())
    assert float(radius) == pytest.approx(expected)


def test_a_batch_of_padding_gives_a_finite_radius():
    for text in ("mean", "quantile:0.5", "running-mean:0.9"):
        assert np.isfinite(cutoff_value(NORMS, jnp.zeros(5), parse_cutoff(text), RunningMean.empty())[0])


def test_the_running_mean_is_plain_at_first_and_exponential_later():
    running, seen = RunningMean.empty(), []
    for value in (1.0, 3.0, 5.0):
        radius, running = cutoff_value(jnp.array([value]), jnp.ones(1), Cutoff("running-mean", 0.9), running)
        seen.append(float(radius))
    assert seen == pytest.approx([1.0, 2.0, 3.0])
    for _ in range(30):
        radius, running = cutoff_value(jnp.array([7.0]), jnp.ones(1), Cutoff("running-mean", 0.9), running)
    before = float(radius)
    after = float(cutoff_value(jnp.array([0.0]), jnp.ones(1), Cutoff("running-mean", 0.9), running)[0])
    assert after == pytest.approx(0.9 * before)


def test_epsilon_is_cut_then_scaled():
    np.testing.assert_allclose(cutoff_scale_epsilon(NORMS, 0.3, 1.2), [0, 0.12, 0.36, 0.36, 0.36], rtol=1e-6)


perturbations = arrays(np.float32, (4, 6), elements=st.floats(-1, 1, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3))


@settings(max_examples=60, deadline=None)
@given(perturbations, st.floats(0.0625, 2, width=32), st.floats(0.125, 2, width=32), st.sampled_from(["linf", "l2", "l1", "rms"]))
def test_a_rescaled_perturbation_has_exactly_the_nonuniform_budget(delta, cutoff, scale, norm):
    delta = jnp.asarray(delta)
    moved = cutoff_scale_perturbation(delta, cutoff, scale, norm=norm)
    expected = cutoff_scale_epsilon(per_example_norm(delta, norm), cutoff, scale)
    np.testing.assert_allclose(per_example_norm(moved, norm), expected, rtol=1e-4, atol=1e-5)
    assert np.all(np.sign(moved) * np.sign(delta) >= 0)


def test_the_authors_formula():
    # delta * min(1, c / n) with n = sqrt(sum(delta^2) / D), then times rho
    delta, cutoff, rho = np.array([[0.3, -0.4, 0.0, 0.0], [0.01, 0.0, 0.0, 0.0]], np.float32), 0.1, 0.9
    n = np.sqrt(np.maximum(1e-12, (delta**2).sum(1) / 4))
    expected = rho * delta * np.minimum(1, cutoff / n)[:, None]
    np.testing.assert_allclose(cutoff_scale_perturbation(jnp.asarray(delta), cutoff, rho), expected, rtol=1e-6)


def test_linf_clips_element_wise():
    moved = cutoff_scale_perturbation(jnp.array([[0.5, 0.1, -0.3]]), 0.2, 1.0, norm="linf")
    np.testing.assert_allclose(moved, [[0.2, 0.1, -0.2]])


@pytest.mark.parametrize("text", ["median", "quantile", "quantile:1.5", "constant:-1", "running-mean:1", "mean:3", "constant:x"])
def test_senseless_cutoffs_are_refused(text):
    with pytest.raises(SettingError, match="cutoff"):
        parse_cutoff(text)
