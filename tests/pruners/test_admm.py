"""ADMM: its updates against numpy, a quadratic whose sparse minimum is known, and the ends of a phase."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bap_jax.errors import SettingError
from bap_jax.pruners.admm import admm, admm_learning_rate, robust_admm

KEY = jax.random.key(0)
BEST = np.array([[2.0, -0.5, 1.0], [-3.0, 0.2, 0.1]], np.float32)  # the minimum of the quadratic; sparse: 2, 1, -3


def quadratic(weights):
    return 0.5 * jnp.sum((weights["w"] - BEST) ** 2) + 0.5 * jnp.sum((weights["bias"] - 1) ** 2)


def train(pruner, num_steps, masks=None, rate=0.3):
    weights, state = pruner.init(KEY, {"w": jnp.asarray(BEST), "bias": jnp.zeros(3)}, masks)
    optimizer = optax.sgd(rate)
    moments = optimizer.init(weights)

    @jax.jit
    def one(step, weights, moments, state):
        gradients = jax.grad(lambda w: quadratic(w) + pruner.penalty(step, w, state))(weights)
        updates, moments = optimizer.update(gradients, moments)
        weights = optax.apply_updates(weights, updates)
        weights, state = jax.lax.cond(
            pruner.due(step, state), lambda: pruner.update(KEY, step, weights, gradients, state), lambda: (weights, state)
        )
        return pruner.project(weights, state), moments, state

    for step in range(num_steps):
        weights, moments, state = one(jnp.int32(step), weights, moments, state)
    return weights, state


OPTIONS = {"prunable": lambda path, leaf: path == "w", "rho": 0.1, "rho_growth": 1.5, "rho_max": 2.0}


@pytest.mark.parametrize("refresh", [True, False])
def test_it_is_the_published_iteration(refresh):
    pruner = admm(0.5, frequency=2, dual_every=3, refresh=refresh, **OPTIONS)
    weights, state = train(pruner, 40)

    def cut(matrix):
        kept = np.argsort(-np.abs(matrix).ravel(), kind="stable")[:3]
        flat = np.zeros(6)
        flat[kept] = matrix.ravel()[kept]
        return flat.reshape(2, 3)

    w, z, u, rho = BEST.astype(np.float64), cut(BEST.astype(np.float64)), np.zeros((2, 3)), 0.1
    for step in range(40):
        w = w - 0.3 * ((w - BEST) + rho * (w - z + u))
        if (step + 1) % 2 == 0:
            epoch = (step + 1) // 2
            if refresh:
                z = cut(w)
            if epoch % 3 == 0:
                rho = min(2.0, 1.5 * rho)
                z = cut(w + u)
                u = u + w - z
    np.testing.assert_allclose(weights["w"], w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.targets["w"], z, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.duals["w"], u, rtol=1e-4, atol=1e-6)
    assert float(state.rho) == pytest.approx(rho)
    assert state.targets["bias"].shape == () and float(weights["bias"][0]) == pytest.approx(1, abs=1e-4)


def test_a_convex_problem_ends_at_its_sparse_minimum():
    """The three smallest coordinates of the minimum are driven to zero, the others to their optimum; cutting loses nothing."""
    weights, state = train(admm(0.5, frequency=10, dual_every=1, refresh=False, **OPTIONS), 400)
    expected = np.where(np.abs(BEST) >= 1, BEST, 0)
    np.testing.assert_allclose(weights["w"], expected, atol=1e-3)
    params, masks = admm(0.5, frequency=10, **OPTIONS).finish(weights, state)
    assert masks["w"].tolist() == (expected != 0).tolist() and masks["bias"].shape == ()
    assert float(quadratic(params)) == pytest.approx(0.5 * (0.5**2 + 0.2**2 + 0.1**2), rel=1e-2)


def test_structure_is_that_of_the_cut_network():
    for structure, expected in (("filter", [[True, False, False]] * 2), ("column", [[False] * 3, [True] * 3])):
        pruner = admm(0.5 if structure == "column" else 2 / 3, frequency=5, structure=structure, **OPTIONS)
        weights, state = train(pruner, 12)
        params, masks = pruner.finish(weights, state)
        assert masks["w"].tolist() == expected and ((params["w"] != 0) == masks["w"]).all()
        assert (weights["w"] != 0).all()  # dense until then


def test_given_masks_bound_it():
    bound = {"w": jnp.array([[True, True, False], [False, True, True]]), "bias": jnp.bool_(True)}
    pruner = admm(0.5, frequency=5, **OPTIONS)
    weights, state = train(pruner, 20, bound)
    assert not weights["w"][~bound["w"]].any()
    _, masks = pruner.finish(weights, state)
    assert masks["w"].tolist() == [[True, True, False], [False, True, False]]


def test_defaults_are_those_published():
    params = {"conv": jnp.ones((3, 3, 2, 2)), "fc": jnp.ones((4, 2))}
    _, state = admm(0.75, frequency=7).init(KEY, params)
    assert state.masks["fc"].shape == () and int(state.masks["conv"].sum()) == 9
    pruner = robust_admm(0.75, frequency=7)
    _, state = pruner.init(KEY, params)
    assert int(state.masks["fc"].sum()) == 2
    state, update = state._replace(rho=jnp.float32(50.0)), jax.jit(pruner.update)
    after = [float(update(KEY, jnp.int32(step), params, params, state)[1].rho) for step in (6, 13, 20)]
    np.testing.assert_allclose(after, [50, 50, 65])  # every third epoch, uncapped
    rates = [float(admm_learning_rate(step, frequency=5)) for step in (0, 5, 10, 15)]
    np.testing.assert_allclose(rates, [1, 0.1, 0.01, 1], rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"sparsity": 1.5}, {"frequency": 0}, {"rho": 0.0}, {"rho_growth": 0.5}, {"rho_max": 0.001}, {"dual_every": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_refusals(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        admm(**{"sparsity": 0.5, "frequency": 3} | wrong)
