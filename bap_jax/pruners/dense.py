"""No pruning: the dense network, for pretraining and for baselines; or given masks, as they are, for fine-tuning."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from bap_jax.mathematics.masks import Prunable, apply_masks, full_masks, kernels, masks_like
from bap_jax.types import Array, Params, Pruner, PyTree


class DenseState(NamedTuple):
    """All-True masks, so that a dense network looks like a pruned one."""

    masks: PyTree


class FixedState(NamedTuple):
    """Given masks, which never change."""

    masks: PyTree


def dense(*, prunable: Prunable = kernels) -> Pruner:
    """Keeps every weight; of given masks, every weight that they keep, and the others stay zero.

    >>> import jax, jax.numpy as jnp
    >>> pruner = dense()
    >>> weights, state = pruner.init(jax.random.key(0), {"kernel": jnp.ones((2, 2))})
    >>> pruner.finish(weights, state)[1]["kernel"].tolist()
    [[True, True], [True, True]]
    >>> weights, state = pruner.init(jax.random.key(0), {"kernel": jnp.ones((1, 2))}, {"kernel": jnp.array([[True, False]])})
    >>> pruner.finish(weights, state)[0]["kernel"].tolist()
    [[1.0, 0.0]]
    """

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[Params, DenseState | FixedState]:
        if masks is None:
            return params, DenseState(full_masks(params, prunable))
        state = FixedState(masks_like(params, masks, prunable))
        return project(params, state), state

    def project(params: Params, state: DenseState | FixedState) -> Params:
        return apply_masks(params, state.masks) if isinstance(state, FixedState) else params

    return Pruner(
        init=init,
        effective=lambda params, state: params,
        penalty=lambda step, params, state: jnp.float32(0.0),
        due=lambda step, state: jnp.bool_(False),
        update=lambda key, step, params, dense_grads, state: (params, state),
        project=project,
        finish=lambda params, state: (params, state.masks),
    )
