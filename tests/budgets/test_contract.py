"""What every budget keeps to. A new one is covered by its row in ``BUDGETS``."""

import functools
import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from budget_cases import ATTACK, MARGIN, NEIGHBOURS, B, K, network
from told import told

from bap_jax import budgets
from bap_jax.attacks import n_fgsm, pgd, rs_fgsm
from bap_jax.mathematics.norms import per_example_norm

KEYS = jax.random.split(jax.random.key(5), B)


def every_budget():
    yield "none", budgets.none()
    yield "uniform", budgets.uniform(ATTACK, 0.1)
    yield "uniform rs-fgsm", budgets.uniform(rs_fgsm, 0.1)
    yield "uniform n-fgsm", budgets.uniform(n_fgsm, 0.1)
    yield "fresh n-fgsm", budgets.cutoff_scale(MARGIN, n_fgsm)
    for cutoff in ("mean", "quantile:0.5", "running-mean:0.9", "constant:0.2", "off"):
        yield f"fresh {cutoff}", budgets.cutoff_scale(MARGIN, ATTACK, cutoff=budgets.parse_cutoff(cutoff))
    for norm in ("linf", "l2", "rms"):
        search = budgets.pgd_search(norm=norm)
        attack = partial(pgd, norm=norm, num_steps=4)
        yield f"fresh {norm}", budgets.cutoff_scale(search, attack, norm=norm, epsilon_max=1.0)
        yield f"rescaled {norm}", budgets.cutoff_scale(search, None, norm=norm, scale=1.0, epsilon_max=1.0)
    yield "deepfool", budgets.cutoff_scale(budgets.deepfool_search(), None, norm="rms", scale=0.9)
    yield from NEIGHBOURS.items()


BUDGETS = dict(every_budget())  # the first word of a name without a factory of its own says how blind examples are made
OF = {"fresh": "cutoff_scale", "rescaled": "cutoff_scale", "deepfool": "cutoff_scale"}
EACH_KIND = ["none", "uniform", "fresh running-mean:0.9", *NEIGHBOURS]  # one of each factory, where another costs a compile

each = pytest.mark.parametrize("name", BUDGETS)


def test_every_budget_is_in_the_list():
    made = {name for name in budgets.__all__ if inspect.isfunction(found := getattr(budgets, name)) and returns_one(found)}
    for names in (BUDGETS, EACH_KIND):
        assert made == {OF.get(name.partition(" ")[0], name.partition(" ")[0]) for name in names}


def returns_one(function):
    return inspect.signature(function).return_annotation == "Budget"


@functools.cache
def program(name):
    """One program for all steps of a budget: a second trace is an error."""
    traces, logits_fn = [], network()[0]

    def traced(keys, batch, state, step):
        assert not traces, "a second compile"
        traces.append(None)
        return BUDGETS[name].perturb(keys, logits_fn, batch, state, step=step, gather=lambda x: x)

    return jax.jit(traced, donate_argnums=2)


def begun(name):
    return BUDGETS[name].init(told(100, num_steps=4))


def formed(state):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)


@each
def test_examples_are_in_the_box_and_in_their_own_ball(name):
    _, batch = network()
    adversarial, _ = program(name)(KEYS, batch, begun(name), jnp.int32(0))
    assert adversarial.images.shape == batch.images.shape and adversarial.images.dtype == batch.images.dtype
    assert adversarial.epsilon.shape == (B,) and bool(jnp.all(adversarial.epsilon >= 0))
    assert adversarial.targets.shape == (B, K) and adversarial.weight.shape == (B,)
    assert bool(jnp.all((adversarial.images >= 0) & (adversarial.images <= 1)))
    norm = "l2" if "l2" in name else "rms" if "rms" in name or name == "deepfool" else "linf"
    moved = per_example_norm(adversarial.images - batch.images, norm)
    radius = adversarial.epsilon * (3 if "n-fgsm" in name else 1)  # noise of two radii and a step of one, by design
    assert bool(jnp.all(moved <= radius * (1 + 1e-4) + 1e-6))
    if name == "uniform n-fgsm":
        assert bool(jnp.any(moved > 0.1)) and bool(jnp.all(adversarial.epsilon == 0.1))


@each
def test_its_state_keeps_its_form_is_given_away_whole_and_resumes_to_the_bit(name):
    _, batch = network()
    state = begun(name)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state, is_leaf=lambda leaf: leaf is None))
    form, given, hosts = formed(state), state, []
    for step in range(3):
        adversarial, state = program(name)(KEYS, batch, state, jnp.int32(step))
        hosts.append(jax.tree.map(np.array, (adversarial, state)))
    assert formed(state) == form
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given) if leaf.shape)  # a scalar that is passed on may stay
    resumed = program(name)(KEYS, batch, jax.tree.map(jnp.array, hosts[1][1]), jnp.int32(2))
    jax.tree.map(np.testing.assert_array_equal, resumed, hosts[2])


@pytest.mark.parametrize("name", EACH_KIND)
def test_copies_under_vmap_are_each_as_alone(name):
    logits_fn, batch = network()
    budget, state = BUDGETS[name], begun(name)
    axes = 0 if budget.axes is None else budget.axes(state)
    less = jax.tree.map(lambda leaf: leaf * 3 // 4 if leaf.dtype == jnp.int32 else 0.75 * leaf, state)
    copies = [state, less]

    def perturb(state):
        return budget.perturb(KEYS, logits_fn, batch, state, step=jnp.int32(3), gather=lambda x: x)

    @jax.jit
    def every(copies):
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies)
        mapped = jax.vmap(perturb, in_axes=(axes if jax.tree.leaves(state) else None,), out_axes=0, axis_size=2)
        return mapped(both), [perturb(one) for one in copies]

    many, alone = every(copies)
    for number, single in enumerate(alone):
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, jax.tree.map(lambda leaf, number=number: leaf[number], many), single)
