"""Per-row values against batches."""

import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.mathematics.per_example import choose, expand


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
