"""The fast convolution has lax's values and gradients; compiled, its loop has no slow form and no weight gradient."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bap_jax.errors import SettingError
from bap_jax.mathematics import convolution
from bap_jax.mathematics.convolution import CONV_VARIABLE, conv_kind, fast_conv

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
    assert_same(fast[1:], slow[1:])


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((3, 0), (0, 5)), ((-1, 0), (0, -2))])
@pytest.mark.parametrize(("inputs", "dilation"), [(1, (1, 1)), (3, (2, 1)), (5, (2, 1))])
def test_gradients_of_few_channels_of_many_and_of_dilated_kernels(inputs, dilation, padding):
    images, kernel, key = draw(9, 8, 3, inputs=inputs)
    fast = pullback(lambda x, k: fast_conv(x, k, 1, padding, rhs_dilation=dilation), images, kernel, key)
    assert_same(fast, pullback(lambda x, k: plain(x, k, (1, 1), padding, rhs_dilation=dilation), images, kernel, key))


@pytest.mark.parametrize(("batch", "strides", "dilation"), [(6, (1, 1), (1, 1)), (5, (2, 1), (1, 2)), (4, (1, 2), (2, 1))])
def test_gradients_of_kernels_by_blocks_of_images(monkeypatch, batch, strides, dilation):
    monkeypatch.setattr(convolution, "BLOCK_POINTS", 1)
    images = jax.random.normal(jax.random.key(0), (batch, 7, 8, 3))
    kernel, key = jax.random.normal(jax.random.key(1), (3, 2, 3, 4)), jax.random.key(2)
    conv = lambda x, k: fast_conv(x, k, strides, "SAME", rhs_dilation=dilation)  # noqa: E731
    slow = pullback(lambda x, k: plain(x, k, strides, "SAME", rhs_dilation=dilation), images, kernel, key)
    assert_same(pullback(conv, images, kernel, key), slow)
    assert ("scan" in str(jax.make_jaxpr(partial(pullback, conv))(images, kernel, key))) == (jax.device_count() == 1)


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


def test_forward_mode():
    images, kernel, _ = draw(6, 6, 3)
    given, moved = (images, kernel), (jnp.cos(images), jnp.sin(kernel))
    fast = jax.jvp(lambda x, k: fast_conv(x, k, 2), given, moved)
    assert_same(fast, jax.jvp(lambda x, k: plain(x, k, (2, 2), "SAME"), given, moved))
    jacobian = jax.jacfwd(lambda x: fast_conv(x, kernel).sum((1, 2)))(images)
    np.testing.assert_allclose(jacobian, jax.jacrev(lambda x: fast_conv(x, kernel).sum((1, 2)))(images), rtol=1e-4, atol=1e-4)


def attack_loop(conv):
    """Two convolutions inside a scan of sign-gradient steps."""

    def attack(kernels, images):
        def objective(x):
            return jnp.sum(conv(jax.nn.relu(conv(x, kernels[0])), kernels[1]) ** 2)

        def step(x, _):
            return jnp.clip(x + 0.1 * jnp.sign(jax.grad(objective)(x)), 0, 1), None

        return lax.scan(step, images, None, length=4)[0]

    return attack


def convolutions(conv, channels=4):
    """How the convolutions of the compiled loop are laid out."""
    shapes = [jax.ShapeDtypeStruct((3, 3, channels, 4), jnp.float32), jax.ShapeDtypeStruct((3, 3, 4, 4), jnp.float32)]
    loop = jax.jit(attack_loop(conv)).lower(shapes, jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.float32))
    return re.findall(r" convolution\(.*dim_labels=(\w+)->", loop.compile().as_text())


def test_a_compiled_attack_step_has_convolutions_of_the_fast_form_alone():
    assert convolutions(lambda x, k: fast_conv(x, k)) == ["b01f_01io"] * 4  # any weight gradient would make it more
    assert convolutions(lambda x, k: fast_conv(x, k), channels=2) == ["b01f_01io"] * 3  # and a matrix product


def test_the_trap_is_there_without_the_barrier():
    """The plain form has 01oi; should XLA mend that, the fast form has had its day and this test says so."""
    assert "b01f_01oi" in convolutions(lambda x, k: plain(x, k, (1, 1), "SAME"))


def test_gradients_of_kernels_in_a_loop_have_the_fast_form():
    def train(conv, kernel, images):
        step = lambda k, x: (k - 0.1 * jax.grad(lambda k: jnp.sum(conv(x, k) ** 2))(k), None)  # noqa: E731
        return lax.scan(step, kernel, images)[0]

    def forms(conv):
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 3, 4, 4), (2, 2, 8, 8, 4))]
        return re.findall(r"dim_labels=(\w+)->", jax.jit(partial(train, conv)).lower(*shapes).compile().as_text())

    assert set(forms(lambda x, k: fast_conv(x, k))) == {"b01f_01io"}
    assert set(forms(lambda x, k: plain(x, k, (1, 1), "SAME"))) != {"b01f_01io"}


def test_which_form_is_meant(monkeypatch):
    monkeypatch.delenv(CONV_VARIABLE, raising=False)
    assert conv_kind() == ("fast" if jax.default_backend() == "cpu" else "plain")
    monkeypatch.setenv(CONV_VARIABLE, "plain")
    assert (conv_kind(), conv_kind("fast")) == ("plain", "fast")
    monkeypatch.setenv(CONV_VARIABLE, "quick")
    with pytest.raises(SettingError, match="BAP_CONV = 'quick': expected auto, fast or plain"):
        conv_kind()
    with pytest.raises(SettingError, match="'auto', 'fast' or 'plain'"):
        conv_kind("quick")


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
