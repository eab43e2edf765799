"""The largest values and the projection on few features, against sorts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.extra.numpy import arrays

from bap_jax.errors import SettingError
from bap_jax.mathematics.top_k import among_largest, exactly_largest, project_l0, top_k


def reference_top_k(flat, k):
    """A stable sort: the k largest, the lower index among equals."""
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:k]] = True
    return mask


jitted_top_k = jax.jit(lambda a, b, k: top_k([a, b], k))


@settings(max_examples=80, deadline=None)
@given(
    arrays(
        np.float32,
        (5, 7),
        elements=st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0]), st.floats(-(2.0**90), 2.0**90, width=32)),
    ),
    arrays(np.float32, (11,), elements=st.sampled_from([0.0, 1.0, 2.0, 1e-40, -1e-40])),
    st.integers(-1, 47),
)
def test_top_k_is_a_stable_sort(a, b, k):
    masks = jitted_top_k(a, b, k)
    together = np.concatenate([np.ravel(a), b]) + 0.0
    expected = reference_top_k(together, np.clip(k, 0, together.size))
    np.testing.assert_array_equal(np.concatenate([np.ravel(m) for m in masks]), expected)


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
