"""Values per row against batches, and their means over what is no padding."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bap_jax.errors import SettingError
from bap_jax.mathematics.per_example import choose, expand, mean_of_real, quantile_of_real


def test_expand_gives_the_rank_of_the_batch():
    batch = jnp.zeros((3, 4, 5), jnp.float16)
    assert expand(0.5, batch).shape == ()
    assert expand(jnp.arange(3), batch).shape == (3, 1, 1)
    assert expand(jnp.arange(3), batch).dtype == jnp.float16


def test_a_wrong_number_of_values_is_refused():
    with pytest.raises(SettingError, match=r"one value per example"):
        expand(jnp.arange(4), jnp.zeros((3, 4)))


def test_choose_takes_rows_and_lets_no_nan_through():
    other = jnp.full((2, 3), jnp.nan)
    np.testing.assert_array_equal(choose(jnp.array([True, True]), jnp.ones((2, 3)), other), 1)


rows = st.lists(st.tuples(st.floats(-8, 8, width=16), st.booleans()), min_size=6, max_size=6)


@settings(max_examples=40, deadline=None)
@given(rows, st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
def test_they_are_those_of_the_real_rows_alone(pairs, level):
    values, real = (np.array(column) for column in zip(*pairs, strict=True))
    given_ = jnp.asarray(values, jnp.float32), jnp.asarray(real, jnp.float32)
    kept = values[real]
    np.testing.assert_allclose(mean_of_real(*given_), kept.mean() if len(kept) else 0.0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        quantile_of_real(*given_, level), np.quantile(kept, level) if len(kept) else 0.0, rtol=1e-5, atol=1e-6
    )
