import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bap_jax.mathematics.distributions import erk_counts, erk_densities
from bap_jax.mathematics.sparsity import kept_count

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


traced = jax.jit(lambda s: jnp.stack(erk_counts(SHAPES, s)))


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1, width=32))
def test_counts_add_up_exactly(sparsity):
    counts = np.asarray(traced(jnp.float32(sparsity)))
    sizes = np.array([np.prod(s) for s in SHAPES])
    assert counts.sum() == int(kept_count(int(sizes.sum()), jnp.float32(sparsity)))
    assert np.all((counts >= 0) & (counts <= sizes))
