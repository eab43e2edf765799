"""An exponential moving average of the effective weights, carried beside those that are trained."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.mathematics.masks import apply_masks
from bap_jax.training.state import TrainState
from bap_jax.types import Array, Params, Pruner, PyTree


class Average(NamedTuple):
    """What :class:`bap_jax.training.TrainState` carries of it; ``()`` where there is none."""

    decay: Array  # float32 scalar in [0, 1): the share of the old in the new average
    params: Params  # the average; weights that the newest masks prune are zero


def with_average(state: TrainState, pruner: Pruner, decay: float) -> TrainState:
    """The state before the first step with an average that begins at its effective weights.

    Args:
      state: as of :func:`bap_jax.training.init_state`.
      pruner: the slot.
      decay: the share of the old in the new average, in [0, 1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax import pruners
      >>> pruner = pruners.dense()
      >>> weights, prune = pruner.init(jax.random.key(0), {"kernel": jnp.ones((1, 2))})
      >>> state = TrainState(jnp.int32(0), weights, {}, (), prune, (), (), jax.random.key(0))
      >>> average = with_average(state, pruner, 0.75).average
      >>> moved(average, pruner, {"kernel": jnp.array([[1.0, 3.0]])}, prune).params["kernel"].tolist()
      [[1.0, 1.5]]
    """
    params, _ = pruner.finish(state.trainable, state.prune)
    return state._replace(average=Average(jnp.float32(decay), jax.tree.map(jnp.copy, params)))


def moved(average: PyTree, pruner: Pruner, trainable: PyTree, prune: PyTree) -> PyTree:
    """The average after a step that left these; ``()``, with nothing computed, where there is none."""
    if not isinstance(average, Average):
        return ()
    params, masks = pruner.finish(trainable, prune)
    mixed = jax.tree.map(lambda old, new: old + ((1 - average.decay) * (new - old)).astype(old.dtype), average.params, params)
    return Average(average.decay, apply_masks(mixed, masks))
