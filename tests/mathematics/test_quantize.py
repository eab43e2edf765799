"""Quantised kernels against numpy, and against the bound that rounding to the nearest has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.quantize import bit_operations, dequantize, fake_quantize, quantize, quantized_bits

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype(np.float32) * np.geomspace(1e-3, 1e3, 6, dtype=np.float32)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_integers_are_numpys_and_no_weight_moves_by_more_than_half_a_scale(bits):
    largest = 2 ** (bits - 1) - 1
    scale = np.abs(KERNEL).max((0, 1, 2)) / np.float32(largest)
    found = quantize(KERNEL, bits=bits)
    assert found.values.dtype == jnp.int8
    np.testing.assert_allclose(found.scale.reshape(-1), scale, rtol=2.0**-17)
    np.testing.assert_array_equal(found.values, np.round(KERNEL / np.asarray(found.scale)))
    assert (np.abs(found.values).max((0, 1, 2)) == largest).all()  # each channel uses its whole range
    assert (np.abs(dequantize(found) - KERNEL) <= scale / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize("bits", [2, 8])
def test_products_are_exact_and_quantising_again_changes_nothing(bits):
    found = quantize(KERNEL, bits=bits)
    exact = np.asarray(found.values, np.float64) * np.asarray(found.scale, np.float64)
    np.testing.assert_array_equal(np.asarray(dequantize(found), np.float64), exact)
    again = jax.jit(lambda kernel: quantize(kernel, bits=bits))(dequantize(found))
    np.testing.assert_array_equal(again.values, found.values)
    np.testing.assert_array_equal(again.scale, found.scale)


def test_zeros_stay_and_a_channel_of_zeros_is_one_of_zeros():
    kernel = KERNEL * (np.random.default_rng(1).random(KERNEL.shape) < 0.1)
    kernel[..., 2] = 0
    back = np.asarray(dequantize(quantize(kernel)))
    assert np.isfinite(back).all() and (back[kernel == 0] == 0).all()


def test_the_straight_through_estimate_is_the_quantised_kernel_with_the_gradient_of_the_identity():
    weight = jnp.asarray(np.random.default_rng(2).normal(size=KERNEL.shape), jnp.float32)
    step = jax.jit(jax.value_and_grad(lambda kernel: jnp.sum(weight * fake_quantize(kernel, bits=4))))
    value, gradient = step(jnp.asarray(KERNEL))
    np.testing.assert_allclose(value, jnp.sum(weight * dequantize(quantize(KERNEL, bits=4))), rtol=1e-4)
    np.testing.assert_array_equal(gradient, weight)


def test_bits_are_counted():
    assert quantized_bits((10, 3), bits=4) == 10 * 3 * 4 + 3 * 32
    assert bit_operations(600, weight_bits=8, activation_bits=8) == 300 * 64


@pytest.mark.parametrize("bits", [1, 9, 8.0, True])
def test_bits_that_cannot_be_are_refused(bits):
    for refused in (quantize, fake_quantize):
        with pytest.raises(SettingError, match="bits"):
            refused(KERNEL, bits=bits)


@pytest.mark.parametrize("kernel", [np.float32(1), np.ones((2, 2), np.int32), np.ones((0, 2), np.float32)])
def test_kernels_that_cannot_be_are_refused(kernel):
    with pytest.raises(SettingError, match="kernel"):
        quantize(kernel)
