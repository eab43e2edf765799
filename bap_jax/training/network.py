"""The network that training has reached."""

from __future__ import annotations

from bap_jax.training.state import TrainState
from bap_jax.types import Network, Recipe


def network(state: TrainState, recipe: Recipe) -> Network:
    """What would be deployed of a state: the weights with pruned ones zero, their masks, and the BatchNorm statistics.

    Args:
      state: of training.
      recipe: the slots that it belongs to.

    Returns:
      A :class:`bap_jax.types.Network`, whose leaves may share the buffers of the state: copy it before a step that is donated it.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import bap_jax as bap
      >>> model = bap.Model(lambda key, x: ({"w": jnp.array([[3.0, -1.0]])}, {}), None)
      >>> pruner = bap.pruners.magnitude(bap.Ramp(0.0, 0.5, 0, 1, 1))
      >>> recipe = bap.Recipe(optax.sgd(0.1), pruner, bap.budgets.none(), bap.losses.clean())
      >>> info = bap.RunInfo(model.apply, 2, bap.Bounds(), (1,), num_examples=8, steps_per_epoch=1, num_steps=3)
      >>> state = bap.init_state(model, *recipe, key=jax.random.key(0), images=jnp.zeros((1, 1)), info=info)
      >>> bap.network(state, recipe).masks["w"].tolist()
      [[True, True]]
    """
    params, masks = recipe.pruner.finish(state.trainable, state.prune)
    return Network(params, masks, state.model_state)
