"""One number per training example, carried from epoch to epoch: the memory of budgets that adapt to each example."""

from __future__ import annotations

import jax.numpy as jnp

from bap_jax.types import Array, Batch, Gather


def read_table(table: Array, batch: Batch) -> Array:
    """What the table holds of each row of a batch; 0 for padding.

    Args:
      table: [N], one entry per training example.
      batch: its ``index`` says which entries.

    Returns:
      [B].

    Example:
      >>> import jax.numpy as jnp
      >>> batch = Batch(jnp.zeros((2, 1)), jnp.zeros(2, int), index=jnp.array([1, 3]), weight=jnp.array([1.0, 0.0]))
      >>> read_table(jnp.array([0.5, 0.75, 1.0]), batch).tolist()
      [0.75, 0.0]
    """
    return table.at[batch.index].get(mode="fill", fill_value=0)


def write_table(table: Array, batch: Batch, values: Array, gather: Gather) -> Array:
    """The table with the entries of a batch's real examples replaced.

    Every device writes what all of them found, so that their tables stay equal. Rows of weight 0 write nothing.

    Args:
      table: [N].
      batch: this device's part of the batch.
      values: [B], of the same part.
      gather: see :class:`bap_jax.types.Budget`.

    Returns:
      [N].

    Example:
      >>> import jax.numpy as jnp
      >>> batch = Batch(jnp.zeros((2, 1)), jnp.zeros(2, int), index=jnp.array([1, 3]), weight=jnp.array([1.0, 0.0]))
      >>> write_table(jnp.zeros(3), batch, jnp.array([0.5, 9.0]), gather=lambda x: x).tolist()
      [0.0, 0.5, 0.0]
    """
    index = jnp.where(batch.weight > 0, batch.index, table.shape[0])
    return table.at[gather(index)].set(gather(values), mode="drop")
