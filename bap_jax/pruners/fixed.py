"""Given masks that never change: for fine-tuning a pruned network."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, apply_masks, kernels, masks_like
from bap_jax.types import Array, Params, Pruner, PyTree


class FixedState(NamedTuple):
    """Given masks, which never change."""

    masks: PyTree


def fixed(masks: PyTree | None = None, *, prunable: Prunable = kernels) -> Pruner:
    """Keeps the weights that given masks keep, and the others at zero.

    Args:
      masks: of the structure of the parameters: for every leaf a bool array of its shape, or a scalar for all of it. With masks
        that training begins with (:func:`bap_jax.init_state`), a weight is kept that both keep. By default these alone.
      prunable: see :func:`bap_jax.mathematics.masks.masks_from_scores`.

    Returns:
      A :class:`bap_jax.types.Pruner` whose state is a :class:`FixedState`. Its ``init`` raises SettingError where there are no
      masks at all, or masks that do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = fixed({"kernel": jnp.array([[True, True, False]])})
      >>> begun_with = {"kernel": jnp.array([[False, True, True]])}
      >>> pruner.init(jax.random.key(0), {"kernel": jnp.ones((1, 3))}, begun_with)[0]["kernel"].tolist()
      [[0.0, 1.0, 0.0]]
    """
    own = masks

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[Params, FixedState]:
        given = [masks_like(params, one, prunable) for one in (own, masks) if one is not None]
        if not given:
            raise SettingError("masks", None, "the masks to keep: of the pruner, or those that training begins with")
        state = FixedState(jax.tree.map(lambda *leaves: jnp.all(jnp.stack(leaves), axis=0), *given))
        return project(params, state), state

    def project(params: Params, state: FixedState) -> Params:
        return apply_masks(params, state.masks)

    return Pruner(
        init=init,
        effective=lambda params, state: params,
        penalty=lambda step, params, state: jnp.float32(0.0),
        due=lambda step, state: jnp.bool_(False),
        update=lambda key, step, params, dense_grads, state: (params, state),
        project=project,
        finish=lambda params, state: (project(params, state), state.masks),
        settled=lambda step, state: jnp.bool_(True),
    )
