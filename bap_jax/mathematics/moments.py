"""What an optimiser remembers of each weight: its moments."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from bap_jax.types import PyTree


def forget(optimizer: optax.GradientTransformation, opt_state: PyTree, forgotten: PyTree) -> PyTree:
    """The state of an optimiser in which some entries begin anew: their momentum and other moments are zero.

    Counts, learning rates and schedules stay. Whatever optimisers are made of, by :func:`optax.chain`,
    :func:`optax.inject_hyperparams` or :func:`optax.multi_transform`, goes by :func:`optax.tree_utils.tree_map_params`.

    Args:
      optimizer: whose state it is.
      opt_state: its state.
      forgotten: bools of the structure of what is optimised, each a scalar or of its leaf's shape.

    Returns:
      The state, of the same structure, shapes and dtypes.

    Example:
      >>> sgd, params = optax.sgd(0.1, momentum=0.9), {"w": jnp.zeros(3)}
      >>> _, state = sgd.update({"w": jnp.ones(3)}, sgd.init(params), params)
      >>> forget(sgd, state, {"w": jnp.array([True, False, True])})[0].trace["w"].tolist()
      [0.0, 1.0, 0.0]
    """

    def own(moment, begins_anew):
        if isinstance(moment, optax.MaskedNode):  # of another optimiser's part
            return moment
        return jnp.where(begins_anew, jnp.zeros_like(moment), moment)

    def masked(leaf) -> bool:
        return isinstance(leaf, optax.MaskedNode)

    return optax.tree_utils.tree_map_params(optimizer, own, opt_state, forgotten, is_leaf=masked)
