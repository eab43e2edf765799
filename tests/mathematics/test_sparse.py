"""The projection on few features against a sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.sparse import project_l0

project = jax.jit(project_l0)
values = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -2.0]) | st.floats(-10, 10, width=32, allow_subnormal=False)


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.float32, (3, 7), elements=values), hnp.arrays(np.int32, 3, elements=st.integers(-1, 9)))
def test_it_keeps_what_a_stable_sort_puts_first(delta, counts):
    found = np.asarray(project(jnp.asarray(delta), jnp.asarray(counts)))
    for row, count, got in zip(delta, counts, found, strict=True):
        order = np.argsort(-np.abs(row), kind="stable")[: max(count, 0)]
        expected = np.zeros_like(row)
        expected[order] = row[order]
        np.testing.assert_array_equal(got, expected)


def test_counts_may_be_fractions_one_number_or_beyond_the_features():
    delta = jnp.asarray(np.random.RandomState(0).randn(2, 3, 4), jnp.float32)
    for count, kept in ((2.9, 2), (0.5, 0), (5, 5), (100.0, 12), (jnp.inf, 12)):
        np.testing.assert_array_equal(jnp.sum(project(delta, count) != 0, axis=(1, 2)), kept)


def test_one_count_for_another_batch_is_refused():
    with pytest.raises(SettingError) as error:
        project_l0(jnp.zeros((2, 3)), jnp.ones(3))
    assert error.value.name == "count"
