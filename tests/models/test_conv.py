"""The fast convolution has lax's values and gradients; compiled, its loop has no slow form and no weight gradient."""

import itertools
import re
import traceback
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bap_jax.errors import SettingError
from bap_jax.models.conv import conv_function, conv_layer, fast_conv, max_pool

LAYOUT = ("NHWC", "HWIO", "NHWC")


def plain(images, kernel, strides, padding, **options):
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=LAYOUT, **options)


def draw(height, width, size, inputs=3, outputs=4, groups=1):
    keys = jax.random.split(jax.random.key(size + 10 * height), 3)
    images = jax.random.normal(keys[0], (2, height, width, inputs))
    return images, jax.random.normal(keys[1], (size, size, inputs // groups, outputs)), keys[2]


def pullback(function, images, kernel, key):
    """Value and both cotangents, for a random cotangent of the result."""
    out, pull = jax.vjp(function, images, kernel)
    return out, *pull(jax.random.normal(key, out.shape, out.dtype))


def assert_same(fast, slow):
    for ours, theirs in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("strides", "size", "padding"),
    [*itertools.product((1, 2), (1, 3, 5), ("SAME", "VALID")), (2, 3, ((1, 1), (1, 1))), (2, 1, ((3, 0), (0, 5)))],
)
def test_values_and_gradients_are_those_of_lax(strides, size, padding):
    images, kernel, key = draw(8, 7, size)
    fast = pullback(lambda x, k: fast_conv(x, k, strides, padding), images, kernel, key)
    slow = pullback(lambda x, k: plain(x, k, (strides, strides), padding), images, kernel, key)
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_array_equal(fast[2], slow[2])  # the weights' gradient is the very same computation
    assert_same(fast[1], slow[1])


@pytest.mark.parametrize("height", [6, 7])  # a stride of 3 leaves 1 or 2 rows that no window reaches
def test_rows_beyond_the_last_window_get_zero_gradient(height):
    images, kernel, key = draw(height, 9, 2)
    fast = pullback(lambda x, k: fast_conv(x, k, (3, 2), "VALID"), images, kernel, key)
    assert_same(fast, pullback(lambda x, k: plain(x, k, (3, 2), "VALID"), images, kernel, key))


def test_groups_and_dilated_kernels():
    images, kernel, key = draw(9, 8, 3, inputs=4, outputs=6, groups=2)
    options = {"rhs_dilation": (2, 1), "feature_group_count": 2}
    fast = pullback(lambda x, k: fast_conv(x, k, 2, "SAME", **options), images, kernel, key)
    assert_same(fast, pullback(lambda x, k: plain(x, k, (2, 2), "SAME", **options), images, kernel, key))


def test_half_precision_with_a_wider_result():
    images, kernel, key = (x.astype(jnp.bfloat16) if i < 2 else x for i, x in enumerate(draw(6, 6, 3)))
    out, images_gradient, kernel_gradient = pullback(
        lambda x, k: fast_conv(x, k, preferred_element_type=jnp.float32), images, kernel, key
    )
    assert (out.dtype, images_gradient.dtype, kernel_gradient.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    wide = jax.grad(lambda x: jnp.sum(plain(x, kernel.astype(jnp.float32), (1, 1), "SAME") * out))(images.astype(jnp.float32))
    ours = jax.grad(lambda x: jnp.sum(fast_conv(x, kernel, preferred_element_type=jnp.float32) * out))(images)
    np.testing.assert_allclose(ours.astype(jnp.float32), wide, rtol=0.05, atol=0.3)


def loss(conv, images, kernel):
    return jnp.sum(jnp.sin(conv(images, kernel)))


def transformed(conv, images, kernel):
    """Every transformation that an attack or a sweep applies."""
    many = jnp.stack([kernel, 2 * kernel])
    gradient = jax.grad(lambda x: loss(conv, x, kernel))
    return {
        "vmap over images": jax.vmap(lambda x: jax.grad(lambda z: loss(conv, z[None], kernel))(x))(images),
        "vmap over kernels": jax.vmap(jax.grad(lambda k, x: loss(conv, x, k), argnums=(0, 1)), (0, None))(many, images),
        "jacrev": jax.jacrev(lambda x: jnp.sum(conv(x, kernel), axis=(1, 2)))(images),
        "scan": lax.scan(lambda x, _: (x + 0.1 * gradient(x), None), images, None, length=3)[0],
        "gradient of a gradient": jax.grad(lambda x: jnp.sum(gradient(x) ** 2))(images),
        "checkpoint": jax.grad(jax.checkpoint(lambda x: loss(conv, x, kernel)))(images),
    }


def test_transformations_agree():
    images, kernel, _ = draw(6, 6, 3)
    fast = jax.jit(partial(transformed, lambda x, k: fast_conv(x, k, 2)))(images, kernel)
    slow = jax.jit(partial(transformed, lambda x, k: plain(x, k, (2, 2), "SAME")))(images, kernel)
    for name in slow:
        jax.tree.map(
            lambda a, b, name=name: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=name), fast[name], slow[name]
        )


def test_forward_mode_raises_and_plain_serves_it():
    images, kernel, _ = draw(6, 6, 3)
    for forward in (lambda f: jax.jvp(f, (images,), (images,)), lambda f: jax.jacfwd(f)(images)):
        with pytest.raises(SettingError, match=r"conv = 'fast': expected 'plain'.* for forward mode"):
            forward(lambda x: fast_conv(x, kernel))
    with pytest.raises(TypeError, match="custom_vjp") as compiled:  # jax's own, which shows the line that names the remedy
        jax.jvp(jax.jit(lambda x: fast_conv(x, kernel)), (images,), (images,))
    assert 'build the model with conv="plain"' in "".join(traceback.format_exception(compiled.value))
    _, tangent = jax.jvp(lambda x: plain(x, kernel, (1, 1), "SAME"), (images,), (images,))
    np.testing.assert_allclose(tangent, fast_conv(images, kernel), rtol=1e-6)


def attack_loop(conv):
    """Two convolutions and a pool inside a scan of sign-gradient steps."""

    def attack(kernels, images):
        def objective(x):
            return jnp.sum(conv(max_pool(jax.nn.relu(conv(x, kernels[0]))), kernels[1]) ** 2)

        def step(x, _):
            return jnp.clip(x + 0.1 * jnp.sign(jax.grad(objective)(x)), 0, 1), None

        return lax.scan(step, images, None, length=4)[0]

    return attack


def convolutions(conv):
    shapes = [jax.ShapeDtypeStruct((3, 3, 2, 4), jnp.float32), jax.ShapeDtypeStruct((3, 3, 4, 4), jnp.float32)]
    text = jax.jit(attack_loop(conv)).lower(shapes, jax.ShapeDtypeStruct((2, 8, 8, 2), jnp.float32)).compile().as_text()
    return re.findall(r" convolution\(.*dim_labels=(\w+)->", text)


def test_compiled_attack_step_has_two_forward_and_two_backward_convolutions_of_the_fast_form():
    assert convolutions(lambda x, k: fast_conv(x, k)) == ["b01f_01io"] * 4  # any weight gradient would make it more


def test_the_trap_is_there_without_the_barrier():
    """The plain form has 01oi; should XLA mend that, the fast form has had its day and this test says so."""
    assert "b01f_01oi" in convolutions(lambda x, k: plain(x, k, (1, 1), "SAME"))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("kind", ["fast", "plain"])
def test_lowers_for_accelerators(kind, platform):
    layer = conv_layer(4, 3, conv=kind, strides=2)
    images = jnp.ones((2, 8, 8, 3))
    variables = layer.init(jax.random.key(0), images)
    gradients = jax.jit(jax.value_and_grad(lambda v, x: jnp.sum(layer.apply(v, x) ** 2), argnums=(0, 1)))
    text = gradients.trace(variables, images).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 3
    assert text.count("optimization_barrier") == (1 if kind == "fast" else 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lhs_dilation", {"lhs_dilation": (2, 1)}),
        ("batch_group_count", {"batch_group_count": 2}),
        ("out_sharding", {"out_sharding": "somewhere"}),
        ("dimension_numbers", {"dimension_numbers": ("NCHW", "OIHW", "NCHW")}),
    ],
)
def test_refuses_what_it_does_not_do(name, options):
    with pytest.raises(SettingError, match=name):
        fast_conv(jnp.ones((2, 4, 4, 2)), jnp.ones((3, 3, 2, 2)), **options)


@pytest.mark.parametrize("shape", [(4, 4, 3), (2, 4, 4, 5)])
def test_refuses_shapes_that_do_not_fit(shape):
    with pytest.raises(SettingError, match="images"):
        fast_conv(jnp.ones(shape), jnp.ones((3, 3, 3, 2)))


def test_unknown_form():
    with pytest.raises(SettingError, match="'fast' or 'plain'"):
        conv_function("quick")


@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (2, 7, 5, 3)])
def test_max_pool_is_reduce_window(shape):
    images, key = jax.random.normal(jax.random.key(0), shape), jax.random.key(1)

    def window(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    ours, pull = jax.vjp(max_pool, images)
    theirs, reference = jax.vjp(window, images)
    cotangent = jax.random.normal(key, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(pull(cotangent)[0], reference(cotangent)[0])


def test_max_pool_shares_the_gradient_of_a_tie():
    gradient = jax.grad(lambda x: max_pool(x)[0, 0, 0, 0])(jnp.array([1.0, 3.0, 3.0, 0.0]).reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(gradient.ravel(), [0, 0.5, 0.5, 0])


def test_max_pool_needs_two_rows():
    with pytest.raises(SettingError, match="at least 2"):
        max_pool(jnp.ones((1, 1, 4, 1)))
