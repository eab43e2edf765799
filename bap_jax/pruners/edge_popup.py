"""Edge-popup: a robust network found inside a random one (robust scratch tickets)."""

from __future__ import annotations

import math

import jax.numpy as jnp

from bap_jax.mathematics.group_masks import Structures
from bap_jax.mathematics.masks import Prunable, kernels
from bap_jax.pruners._scores import fan_in, kaiming_uniform
from bap_jax.pruners.score_search import score_search
from bap_jax.types import Array, Pruner


def edge_popup(sparsity: float, *, prunable: Prunable = kernels, structures: Structures | None = None) -> Pruner:
    """Weights of random sign and constant size, never trained, and trained scores; each layer keeps its largest ``|score|``.

    Weights become ``sgn(w) · √2 / √fan_in``, scores begin uniform in ``±1/√fan_in``. Nothing else is trained: BatchNorm's scale
    and shift and all biases stay as the network begins with them (1 and 0 in a new one; the original's BatchNorm has neither).
    Published: 160 epochs, SGD .1, momentum .9, weight decay 5e-4, adversarial training by PGD over scores.

    What is not known of the original: the bound of its Kaiming-uniform scores; ours is the usual one of edge-popup (a = √5), and
    only its size relative to the learning rate matters.

    Args:
      sparsity: of each layer, in [0, 1].
      prunable: ``(path, leaf) -> bool``.
      structures: keep whole filters, channels, ..., see :func:`bap_jax.pruners.score_search.score_search`; published are weights.

    Returns:
      A :class:`bap_jax.types.Pruner`, see :func:`bap_jax.pruners.score_search.score_search`.

    Raises:
      SettingError: a sparsity outside [0, 1].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = edge_popup(0.5)
      >>> trainable, state = pruner.init(jax.random.key(0), {"w": jnp.array([[0.3, -0.1]] * 2)})
      >>> [round(float(w), 3) for w in state.weights["w"][0]]
      [1.0, -1.0]

    References:
      Fu et al. 2021, "Drawing Robust Scratch Tickets: Subnetworks with Inborn Robustness Are Found within Randomly Initialized
      Networks" (RICE-EIC/Robust-Scratch-Ticket); Ramanujan et al. 2020, "What's Hidden in a Randomly Weighted Neural Network?".
    """
    return score_search(sparsity, _begin, train_batch_norm=False, prunable=prunable, structures=structures)


def _begin(key: Array, kernel: Array) -> tuple[Array, Array]:
    constant = math.sqrt(2.0 / fan_in(kernel))
    return (jnp.sign(kernel) * constant).astype(kernel.dtype), kaiming_uniform(key, kernel)
