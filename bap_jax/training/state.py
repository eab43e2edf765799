"""Everything training carries from step to step, as one pytree."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bap_jax.types import Array, Budget, Loss, Model, ModelState, Pruner, PyTree


class TrainState(NamedTuple):
    """One pytree, one checkpoint."""

    step: Array  # int32 scalar, steps taken so far
    trainable: PyTree  # what the optimiser moves; the weights for magnitude pruning
    model_state: ModelState  # BatchNorm statistics, or {}
    opt_state: PyTree
    prune: PyTree  # masks and whatever else the pruner keeps
    budget: PyTree  # running cutoff, per-example table, or ()
    loss: PyTree  # a frozen teacher, or ()
    key: Array  # typed PRNG key; never changes, every step folds its number in


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    pruner: Pruner,
    budget: Budget,
    loss: Loss,
    *,
    key: Array,
    images: Array,
    num_examples: int,
) -> TrainState:
    """The state before the first step. Pure, so that it can be jitted (one compile instead of one per layer).

    Args:
      model: see :class:`bap_jax.types.Model`.
      optimizer: an optax transformation.
      pruner, budget, loss: the slots.
      key: typed PRNG key of the run.
      images: [B, ...] an example batch; only its shape and dtype matter.
      num_examples: size of the training set, for budgets that keep a table.

    Returns:
      The :class:`TrainState`; no two leaves share a buffer, so that it may be donated.

    >>> import jax, jax.numpy as jnp, optax
    >>> from bap_jax import budgets, losses, pruners
    >>> from bap_jax.types import Model
    >>> model = Model(lambda key, x: ({"w": jnp.ones((4, 2))}, {}), None)
    >>> state = init_state(
    ...     model, optax.sgd(0.1), pruners.dense(), budgets.none(), losses.clean(),
    ...     key=jax.random.key(0), images=jnp.zeros((1, 4)), num_examples=100)
    >>> int(state.step), state.trainable["w"].shape
    (0, (4, 2))
    """
    model_key, prune_key, run_key = jax.random.split(key, 3)
    params, model_state = model.init(model_key, images)
    trainable, prune = pruner.init(prune_key, params)
    # a frozen teacher or frozen weights may be the very arrays that are trained, or the user's own, which outlive the state
    prune, loss_state = jax.tree.map(jnp.copy, (prune, loss.init(params, model_state)))
    return _without_sharing(
        TrainState(
            step=jnp.int32(0),
            trainable=trainable,
            model_state=model_state,
            opt_state=optimizer.init(trainable),
            prune=prune,
            budget=budget.init(num_examples),
            loss=loss_state,
            key=run_key,
        )
    )


def _without_sharing(state: TrainState) -> TrainState:
    """The state with a copy of every leaf whose buffer another leaf has (tied weights, one array of zeros at two places).

    A donated buffer must not appear twice. What shares nothing stays as it is: copies of all would be a compile for each shape.
    """
    seen: set[object] = set()

    def own(leaf):
        buffers = _buffers(leaf)
        shared = not seen.isdisjoint(buffers)
        seen.update(buffers)
        return jnp.copy(leaf) if shared else leaf

    return jax.tree.map(own, state)


def _buffers(leaf: Any) -> list[object]:
    """What tells the memory of a leaf from that of another; under a trace, where there is none yet, the tracer itself."""
    plain = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    if not plain or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or not leaf.size:
        return [id(leaf)]
    try:
        return [(shard.device, shard.data.unsafe_buffer_pointer()) for shard in leaf.addressable_shards]
    except jax.errors.JaxRuntimeError:  # a backend that tells no addresses: the same array at two places is seen all the same
        return [id(leaf)]
