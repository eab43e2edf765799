"""Operations replaced in programs: wherever they stand, and nothing else."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend import core

from bap_jax.mathematics.jaxprs import with_primitives


def cosines(operation):
    return lax.cos_p if operation.primitive is lax.sin_p else None


@jax.custom_jvp
def own(x):
    return jnp.sin(x)


own.defjvp(lambda primals, tangents: (own(*primals), jnp.sin(primals[0]) * tangents[0]))


@jax.custom_vjp
def own_backward(x):
    return jnp.sin(x)


own_backward.defvjp(lambda x: (jnp.sin(x), x), lambda x, cotangent: (cotangent * x,))

INSIDE = {
    "alone": jnp.sin,
    "jit": jax.jit(jnp.sin),
    "remat": jax.checkpoint(jnp.sin),
    "scan": lambda x: lax.scan(lambda total, _: (total + jnp.sin(x), None), 0.0, None, length=1)[0],
    "while": lambda x: lax.while_loop(lambda held: held[0] < 1, lambda held: (held[0] + 1, jnp.sin(held[1])), (0, x))[1],
    "cond": lambda x: lax.cond(x > 0, jnp.sin, lambda x: x, x),
    "custom_jvp": own,
}


@pytest.mark.parametrize("name", INSIDE)
def test_an_operation_is_replaced_wherever_it_stands(name):
    function, x = INSIDE[name], 0.3
    closed = jax.make_jaxpr(function)(x)
    new = with_primitives(closed, cosines)
    (value,) = core.jaxpr_as_fun(new)(x)
    assert float(value) == pytest.approx(float(jnp.cos(x)))
    assert [str(one.primitive) for one in new.eqns] == [str(one.primitive).replace("sin", "cos") for one in closed.eqns]


def test_the_rule_of_a_custom_jvp_is_rewritten_too():
    new = with_primitives(jax.make_jaxpr(own)(0.3), cosines)
    _, tangent = jax.jvp(lambda x: core.jaxpr_as_fun(new)(x)[0], (0.3,), (1.0,))
    assert float(tangent) == pytest.approx(float(jnp.cos(0.3)))  # the rule says sin


def test_what_has_a_backward_pass_of_its_own_stays():
    closed = jax.make_jaxpr(own_backward)(0.3)
    assert with_primitives(closed, cosines) is closed
    assert float(jax.grad(lambda x: core.jaxpr_as_fun(closed)(x)[0])(0.3)) == pytest.approx(0.3)


def test_a_program_that_is_called_twice_stays_one():
    inner = jax.jit(jnp.sin)
    new = with_primitives(jax.make_jaxpr(lambda x: inner(x) + inner(x + 1.0))(0.3), cosines)
    first, second = (one.params["jaxpr"] for one in new.eqns if "jaxpr" in one.params)
    assert first is second
