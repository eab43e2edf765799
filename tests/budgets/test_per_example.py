import jax.numpy as jnp
import numpy as np

from bap_jax.budgets._per_example import read_table, write_table
from bap_jax.types import Batch

TABLE = jnp.array([0.1, 0.2, 0.3, 0.4])


def batch(index, weight):
    size = len(index)
    return Batch(jnp.zeros((size, 2)), jnp.zeros(size, jnp.int32), jnp.array(index), jnp.array(weight))


def test_padding_reads_nothing_and_writes_nothing():
    padded = batch([2, 0, 4, 4], [1.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(read_table(TABLE, padded), [0.3, 0.1, 0.0, 0.0])
    written = write_table(TABLE, padded, jnp.array([7.0, 8.0, 9.0, 9.0]), lambda x: x)
    np.testing.assert_allclose(written, [8.0, 0.2, 7.0, 0.4])


def test_a_row_without_weight_writes_nothing_even_where_its_index_is_real():
    written = write_table(TABLE, batch([1, 1], [1.0, 0.0]), jnp.array([7.0, 9.0]), lambda x: x)
    np.testing.assert_allclose(written, [0.1, 7.0, 0.3, 0.4])


def test_every_device_writes_what_all_of_them_found():
    elsewhere = {2: jnp.array([3]), 0: jnp.array([5.0])}  # index 3, value 5
    gather = lambda x: jnp.concatenate([x, elsewhere[2 if x.dtype == jnp.int32 else 0].astype(x.dtype)])  # noqa: E731
    np.testing.assert_allclose(write_table(TABLE, batch([1], [1.0]), jnp.array([7.0]), gather), [0.1, 7.0, 0.3, 5.0])
