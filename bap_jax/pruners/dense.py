"""No pruning: the dense network, for pretraining and for baselines."""

from __future__ import annotations

from typing import NamedTuple

from bap_jax.mathematics.masks import Prunable, full_masks, kernels
from bap_jax.pruners.fixed import FixedState, fixed
from bap_jax.types import Array, Params, Pruner, PyTree


class DenseState(NamedTuple):
    """All-True masks, so that a dense network looks like a pruned one."""

    masks: PyTree


def dense(*, prunable: Prunable = kernels) -> Pruner:
    """Keeps every weight; of a network that begins with masks, every weight that they keep: :func:`fixed`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = dense()
      >>> weights, state = pruner.init(jax.random.key(0), {"kernel": jnp.ones((2, 2))})
      >>> pruner.finish(weights, state)[1]["kernel"].tolist()
      [[True, True], [True, True]]
      >>> weights, state = pruner.init(jax.random.key(0), {"kernel": jnp.ones((1, 2))}, {"kernel": jnp.array([[True, False]])})
      >>> pruner.finish(weights, state)[0]["kernel"].tolist()
      [[1.0, 0.0]]
    """
    kept = fixed(prunable=prunable)

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[Params, DenseState | FixedState]:
        return (params, DenseState(full_masks(params, prunable))) if masks is None else kept.init(key, params, masks)

    def project(params: Params, state: DenseState | FixedState) -> Params:
        return kept.project(params, state) if isinstance(state, FixedState) else params

    return kept._replace(init=init, project=project, finish=lambda params, state: (params, state.masks))
