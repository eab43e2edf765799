"""Any function with fast convolutions: the same values and gradients, whatever the function is made of."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bap_jax.mathematics.convolution import CONV_VARIABLE
from bap_jax.mathematics.fast import fast, fast_by_default

LAYOUTS = {
    "NHWC": (("NHWC", "HWIO", "NHWC"), (2, 9, 8, 4), (3, 3, 4, 4)),
    "NCHW": (("NCHW", "OIHW", "NCHW"), (2, 4, 9, 8), (4, 4, 3, 3)),
    "CWNH": (("CWNH", "IWOH", "HNCW"), (4, 8, 2, 9), (4, 3, 4, 3)),
}
OPTIONS = {
    "plain": {},
    "strided": {"window_strides": (2, 1), "padding": "VALID"},
    "dilated": {"rhs_dilation": (1, 2)},
    "grouped": {"feature_group_count": 2},
    "depthwise, strided and dilated": {"feature_group_count": 4, "window_strides": (2, 2), "rhs_dilation": (2, 1)},
    "transposed": {"lhs_dilation": (2, 2), "padding": ((1, 1), (1, 1))},
}


def conv(layout, images, kernel, window_strides=(1, 1), padding="SAME", feature_group_count=1, **options):
    """A convolution in a layout, its kernel cut to the inputs of a group."""
    inputs = layout[1].index("I")
    kernel = lax.slice_in_dim(kernel, 0, kernel.shape[inputs] // feature_group_count, axis=inputs)
    options |= {"dimension_numbers": layout, "feature_group_count": feature_group_count}
    return lax.conv_general_dilated(images, kernel, window_strides, padding, **options)


def drawn(*shapes):
    keys = jax.random.split(jax.random.key(len(shapes)), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=5e-5), ours, theirs)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_gradients_of_every_layout(layout, options):
    numbers, *shapes = LAYOUTS[layout]

    def network(images, kernel):
        return conv(numbers, images, kernel, **OPTIONS[options])

    images, kernel = drawn(*shapes)
    out, pull = jax.vjp(network, images, kernel)
    ours, our_pull = jax.vjp(fast(network), images, kernel)
    cotangent = jnp.cos(out)
    close((ours, our_pull(cotangent)), (out, pull(cotangent)))


NHWC = LAYOUTS["NHWC"][0]


@jax.custom_jvp
def bent(images, kernel):
    return jnp.tanh(conv(NHWC, images, kernel))


@bent.defjvp
def _bent(primals, tangents):
    return jax.jvp(lambda images, kernel: jnp.tanh(conv(NHWC, images, kernel)), primals, tangents)


@jax.custom_vjp
def doubled(images, kernel):
    return conv(NHWC, images, kernel)


doubled.defvjp(lambda x, k: (conv(NHWC, x, k), (x, k)), lambda held, g: jax.tree.map(lambda one: 2 * g.sum() * one, held))


def deep(images, kernel):
    """Convolutions inside of everything."""
    images = jax.jit(lambda x: jax.nn.relu(conv(NHWC, x, kernel)))(images)
    images = jax.checkpoint(lambda x: jnp.sin(conv(NHWC, x, kernel)))(images)
    images, rows = lax.scan(lambda x, scale: (jnp.tanh(conv(NHWC, x, scale * kernel)), x.sum()), images, jnp.array([1.0, 0.5]))
    images = lax.cond(rows.sum() > -1e9, lambda x: conv(NHWC, x, kernel), lambda x: x, images)
    return bent(images, kernel).sum() + doubled(images, kernel).sum()


def test_convolutions_inside_of_everything():
    images, kernel = drawn(*LAYOUTS["NHWC"][1:])
    ours = jax.value_and_grad(fast(deep), (0, 1))(images, 0.1 * kernel)
    close(ours, jax.value_and_grad(deep, (0, 1))(images, 0.1 * kernel))
    again = jax.jit(jax.vmap(fast(deep), (0, None)))(images[None], 0.1 * kernel)
    close(again, deep(images, 0.1 * kernel)[None])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_compiled_loops_have_no_other_form(layout):
    numbers, *shapes = LAYOUTS[layout]

    def forms(network):
        def attack(images, kernel):
            return lax.fori_loop(0, 3, lambda _, x: x + jnp.sign(jax.grad(network)(x, kernel)), images)

        text = jax.jit(attack).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile().as_text()
        return set(re.findall(r" convolution\(.*dim_labels=(\w+)->", text))

    def network(images, kernel):
        return (conv(numbers, jax.nn.relu(conv(numbers, images, kernel)), kernel) ** 2).sum()

    assert forms(fast(network)) == {"b01f_01io"} != forms(network)


def test_effects_stay_in_order():
    seen = []

    def network(images, kernel):
        jax.experimental.io_callback(lambda: seen.append("before"), None, ordered=True)
        out = lax.scan(lambda x, number: (told(number, conv(NHWC, x, kernel)), None), images, jnp.arange(2))[0]
        jax.experimental.io_callback(lambda: seen.append("after"), None, ordered=True)
        return out

    def told(number, value):
        jax.experimental.io_callback(lambda at: seen.append(int(at)), None, number, ordered=True)
        return value

    jax.block_until_ready(jax.jit(fast(network))(*drawn(*LAYOUTS["NHWC"][1:])))
    jax.effects_barrier()
    assert seen == ["before", 0, 1, "after"]


def test_arguments_and_results_that_are_no_arrays_pass_through():
    def network(params, images, *, train, key=None):
        assert train is True and key is None
        return {"out": conv(NHWC, images, params["kernel"]), "train": train, "name": "own", "none": None}

    images, kernel = drawn(*LAYOUTS["NHWC"][1:])
    found = fast(network)({"kernel": kernel}, np.asarray(images), train=True)
    assert (found["train"], found["name"], found["none"]) == (True, "own", None)
    np.testing.assert_array_equal(found["out"], conv(NHWC, images, kernel))


def test_a_function_of_tracers_that_it_closes_over():
    images, kernel = drawn(*LAYOUTS["NHWC"][1:])
    ours = jax.grad(lambda k: fast(lambda x: conv(NHWC, x, k))(images).sum())(kernel)
    close(ours, jax.grad(lambda k: conv(NHWC, images, k).sum())(kernel))


def test_fast_functions_of_one_function_are_equal(monkeypatch):
    assert fast(deep) == fast(deep) and hash(fast(deep)) == hash(fast(deep)) and fast(fast(deep)) == fast(deep)
    assert fast(deep) != fast(conv) and fast(deep).__name__ == "deep"
    monkeypatch.setenv(CONV_VARIABLE, "plain")
    assert fast_by_default(deep) is deep
    monkeypatch.setenv(CONV_VARIABLE, "fast")
    assert fast_by_default(deep) == fast(deep)
