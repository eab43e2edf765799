"""No pruning: the dense network, for pretraining and for baselines."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from bap_jax.mathematics.masks import Prunable, full_masks, kernels
from bap_jax.types import Pruner, PyTree


class DenseState(NamedTuple):
    """All-True masks, so that a dense network looks like a pruned one."""

    masks: PyTree


def dense(*, prunable: Prunable = kernels) -> Pruner:
    """Keeps every weight.

    >>> import jax, jax.numpy as jnp
    >>> pruner = dense()
    >>> weights, state = pruner.init(jax.random.key(0), {"kernel": jnp.ones((2, 2))})
    >>> pruner.finish(weights, state)[1]["kernel"].tolist()
    [[True, True], [True, True]]
    """
    return Pruner(
        init=lambda key, params: (params, DenseState(full_masks(params, prunable))),
        effective=lambda params, state: params,
        penalty=lambda step, params, state: jnp.float32(0.0),
        due=lambda step, state: jnp.bool_(False),
        update=lambda key, step, params, dense_grads, state: (params, state),
        project=lambda params, state: params,
        finish=lambda params, state: (params, state.masks),
    )
