"""A batch taken in chunks, one after the other: what no chunk has to know of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.training.state import TrainState
from bap_jax.types import Adversarial, Array, Batch, Budget, Gather, LogitsFn, ModelState, PyTree

T = TypeVar("T")


def split(rows: PyTree, count: int) -> PyTree:
    """[B, ...] as [count, B / count, ...]; row r is in chunk r % count.

    Not the first rows in the first chunk: on a mesh, where each device has neighbouring rows, every chunk so has rows of every
    device, and none has to be sent.

    Example:
      >>> split(jnp.arange(6), 2).tolist()
      [[0, 2, 4], [1, 3, 5]]
    """
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1), rows)


def join(chunks: PyTree) -> PyTree:
    """What :func:`split` made, as it was.

    Example:
      >>> join(split(jnp.arange(6), 2)).tolist()
      [0, 1, 2, 3, 4, 5]
    """
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), chunks)


def row_by_row(function: Callable[[PyTree], PyTree], rows: PyTree, count: int) -> PyTree:
    """``function(rows)`` of a function whose results are one per row, chunk by chunk.

    Example:
      >>> row_by_row(lambda rows: 2 * rows, jnp.arange(4), 2).tolist()
      [0, 2, 4, 6]
    """
    if count == 1:
        return function(rows)
    return join(jax.lax.map(function, split(rows, count)))


def summed(function: Callable[[PyTree, Array | int, PyTree], tuple[T, PyTree]], params: PyTree, rows: PyTree, count: int):
    """The sum of the first results of ``function(params, number, chunk)`` over the chunks, and the list of the second.

    The chunks wait for each other, so that only one at a time needs memory. On a CPU they stand one after the other in the
    program: inside of a loop XLA has a slow path for the gradients of kernels.

    Example:
      >>> summed(lambda params, number, chunk: (params * chunk.sum(), number), 2, jnp.arange(4), 2)
      (Array(12, dtype=int32), [0, 1])
    """
    chunks = split(rows, count)
    if jax.default_backend() != "cpu":

        def add(total, numbered):
            first, second = function(params, *numbered)
            return jax.tree.map(jnp.add, total, first), second

        form = jax.eval_shape(lambda chunk: function(params, jnp.int32(0), chunk)[0], jax.tree.map(lambda leaf: leaf[0], chunks))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), form)
        total, stacked = jax.lax.scan(add, zeros, (jnp.arange(count), chunks))
        return total, [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)]
    total, others = None, []
    for number in range(count):
        chunk = jax.tree.map(lambda leaf, number=number: leaf[number], chunks)
        if number:
            params, total, chunk = jax.lax.optimization_barrier((params, total, chunk))
        first, second = function(params, number, chunk)
        total = first if total is None else jax.tree.map(jnp.add, total, first)
        others.append(second)
    return total, others


def mean_state(states: list[ModelState]) -> ModelState:
    """One state of the network from those that the chunks left: the mean of what is a number, the last of what counts.

    Example:
      >>> mean_state([{"mean": jnp.float32(1), "count": 3}, {"mean": jnp.float32(2), "count": 3}])
      {'count': 3, 'mean': Array(1.5, dtype=float32)}
    """

    def mean(*leaves: Array) -> Array:
        if not jnp.issubdtype(jnp.result_type(leaves[0]), jnp.inexact):
            return leaves[-1]
        return sum(leaves[1:], leaves[0]) / len(leaves)

    return jax.tree.map(mean, *states)


def perturbed(
    budget: Budget, keys: Array, logits_fn: LogitsFn, batch: Batch, state: TrainState, gather: Gather, chunks: int
) -> tuple[Adversarial, PyTree]:
    """The adversarial half of a batch, and what the budget carries on: at once, or in chunks."""
    if chunks == 1:
        return budget.perturb(keys, logits_fn, batch, state.budget, step=state.step, gather=gather)
    if batch.labels.shape[0] % chunks:
        raise SettingError("microbatches", chunks, f"a number that the batch of {batch.labels.shape[0]} divides into")
    if budget.stages is None:
        refused = refuse_gather("a budget without stages (bap_jax.types.Stages)")

        def alone(rows: tuple[Array, Batch]) -> tuple[Adversarial, PyTree]:
            return budget.perturb(rows[0], logits_fn, rows[1], state.budget, step=state.step, gather=refused)

        adversarial, states = jax.lax.map(alone, split((keys, batch), chunks))
        return join(adversarial), jax.tree.map(lambda leaf: leaf[0], states)  # having gathered nothing, all are the same
    measure, agree, give = budget.stages

    def measured_of(rows: tuple[Array, Batch]) -> PyTree:
        return measure(rows[0], logits_fn, rows[1], state.budget, step=state.step)

    measured = row_by_row(measured_of, (keys, batch), chunks)
    budget_state = agree(measured, batch, state.budget, gather=gather)
    return row_by_row(
        lambda rows: give(rows[0], logits_fn, *rows[1:], budget_state), (keys, batch, measured), chunks
    ), budget_state


def share_of_whole(
    chunk: tuple[Batch, Adversarial], whole: tuple[Batch, Adversarial], average: Callable[[Array], Array]
) -> Callable[[Array, Array], Array]:
    """The ``mean`` of a loss that sees a chunk: its share of the mean over the whole batch, so that shares add up.

    Only the weights of the batch and of its adversarial examples are known of the whole.

    Args:
      chunk, whole: the examples, and what the budget made of them.
      average: over devices.
    """

    def mean(values: Array, weight: Array) -> Array:
        weights = (chunk[0].weight, whole[0].weight), (chunk[1].weight, whole[1].weight)
        total = next((theirs for own, theirs in weights if own is weight), None)
        if total is None:
            expected = "1, for a loss whose means are over other weights than those of the batch or of its examples"
            raise SettingError("microbatches", "several", expected)
        return jnp.sum(values * weight) / jnp.maximum(average(jnp.sum(total)), 1e-12)

    return mean


def refuse_gather(what: str) -> Callable[[Array], Array]:
    """A ``gather`` for a slot that sees a chunk only.

    Example:
      >>> refuse_gather("a loss")(jnp.ones(2))
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: microbatches = 'several': expected 1, for a loss that takes a quantity of the whole batch
    """

    def gather(values: Array) -> Array:
        raise SettingError("microbatches", "several", f"1, for {what} that takes a quantity of the whole batch")

    return gather
