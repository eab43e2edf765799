from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bap_jax.errors import SettingError
from bap_jax.mathematics.sparsity import kept_count

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
