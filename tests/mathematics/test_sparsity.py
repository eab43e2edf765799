"""How many weights are kept, in all and in every layer."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bap_jax.errors import SettingError
from bap_jax.mathematics.sparsity import erk_counts, erk_densities, kept_count

SIZES = (1, 7, 10, 1_000_000, 11_173_962, 33_600_001, 2**31 - 1)
traced = jax.jit(kept_count, static_argnums=0)


@pytest.mark.parametrize("size", SIZES)
def test_decimal_sparsities_are_exact_whatever_the_size(size):
    for text in ("0", "0.1", "0.5", "0.8", "0.85", "0.9", "0.95", "0.97", "0.99", "0.995", "0.999", "0.123456", "1"):
        exact = round(size * (1 - Fraction(text)))
        assert int(kept_count(size, float(text))) == exact
        assert int(traced(size, jnp.float32(float(text)))) == exact, text


def test_a_float32_product_would_be_wrong():
    size = 33_600_001
    naive = int(np.round(np.float32(size) * (np.float32(1) - np.float32(0.9))))
    assert naive != int(traced(size, jnp.float32(0.9))) == 3_360_000


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SIZES), st.floats(1 / 128, 1, width=32))
def test_any_other_float32_counts_for_its_own_value(size, sparsity):
    millionths = round(sparsity * 10**6)
    value = Fraction(millionths, 10**6) if np.float32(millionths / 10**6) == np.float32(sparsity) else Fraction(sparsity)
    assert int(traced(size, jnp.float32(sparsity))) == round(size * (1 - value))


def test_refusals():
    with pytest.raises(SettingError, match=r"sparsity = 1\.2: expected a number in \[0, 1\]"):
        kept_count(10, 1.2)
    with pytest.raises(SettingError, match="size"):
        kept_count(2**31, 0.5)


SHAPES = [(5, 5, 1, 32), (5, 5, 32, 64), (3136, 84), (84, 10)]


def erk_by_the_book(shapes, sparsity):
    """Evci et al.'s loop, in float64: make layers dense one by one until none exceeds 1."""
    sizes, raw = [np.prod(s) for s in shapes], [sum(s) / np.prod(s) for s in shapes]
    dense: set[int] = set()
    while True:
        budget = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        factor = budget / sum(sizes[i] * raw[i] for i in range(len(shapes)) if i not in dense)
        over = [i for i in range(len(shapes)) if i not in dense and factor * raw[i] > 1]
        if not over:
            return [1.0 if i in dense else factor * raw[i] for i in range(len(shapes))]
        dense.add(max(over, key=lambda i: raw[i]))


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8, 0.9, 0.99])
def test_densities_are_those_of_the_published_loop(sparsity):
    np.testing.assert_allclose(erk_densities(SHAPES, sparsity), erk_by_the_book(SHAPES, sparsity), rtol=1e-4)


traced_erk_counts = jax.jit(lambda s: jnp.stack(erk_counts(SHAPES, s)))


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1, width=32))
def test_counts_add_up_exactly(sparsity):
    counts = np.asarray(traced_erk_counts(jnp.float32(sparsity)))
    sizes = np.array([np.prod(s) for s in SHAPES])
    assert counts.sum() == int(kept_count(int(sizes.sum()), jnp.float32(sparsity)))
    assert np.all((counts >= 0) & (counts <= sizes))
