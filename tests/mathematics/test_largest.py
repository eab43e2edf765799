"""The largest values of a row, against a sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.mathematics.top_k import among_largest, exactly_largest

ROWS = np.abs(np.random.RandomState(0).randint(-4, 5, (6, 11))).astype(np.float32) / 4  # with many ties
ROWS[3] = 0


@pytest.mark.parametrize("count", [1, 4, 11, np.array([1, 2, 3, 4, 5, 11])])
def test_they_are_what_a_stable_sort_gives(count):
    counts = np.broadcast_to(count, 6)
    order = np.argsort(-ROWS, axis=1, kind="stable")
    place = np.argsort(order, axis=1)
    exact = jax.jit(exactly_largest)(ROWS, jnp.asarray(count))
    np.testing.assert_array_equal(exact, place < counts[:, None])
    last = np.take_along_axis(-np.sort(-ROWS, axis=1), counts[:, None] - 1, axis=1)
    np.testing.assert_array_equal(jax.jit(among_largest)(ROWS, jnp.asarray(count)), last <= ROWS)


def test_none_may_be_asked_for():
    assert not exactly_largest(jnp.asarray(ROWS), jnp.zeros(6, jnp.int32)).any()
