"""HYDRA: which weights of a robust network to keep, learnt by minimising the robust loss over scores."""

from __future__ import annotations

import math

import jax.numpy as jnp

from bap_jax.mathematics.group_masks import Structures
from bap_jax.mathematics.masks import Prunable, Scope, kernels
from bap_jax.pruners._scores import fan_in
from bap_jax.pruners.score_search import score_search
from bap_jax.types import Array, Pruner


def hydra(
    sparsity: float, *, scope: Scope = "layer", prunable: Prunable = kernels, structures: Structures | None = None
) -> Pruner:
    """Frozen pretrained weights, trained scores that begin in proportion to them; each layer keeps its largest ``|score|``.

    Weights and biases are frozen, BatchNorm's scale and shift are trained. Scores begin at ``√(6 / fan_in) · w / max|w|``.
    Published: 100 epochs of pretraining, 20 over scores (SGD .1, momentum .9, weight decay 1e-4, cosine), 100 of fine-tuning
    (.01), with TRADES (β 6) or PGD-10.

    What differs from the original: a layer of n weights keeps ``round(n (1 - sparsity))`` of them, theirs ``n - ⌊n sparsity⌋``,
    which may be one more; their extra unlabelled data are left out.

    Args:
      sparsity: of each layer, in [0, 1]; first and last layer included.
      scope: ``"layer"`` is published; with ``"global"`` all scores compete.
      prunable: ``(path, leaf) -> bool``.
      structures: keep whole filters, channels, ..., see :func:`bap_jax.pruners.score_search.score_search`; published are weights.

    Returns:
      A :class:`bap_jax.types.Pruner`, see :func:`bap_jax.pruners.score_search.score_search`.

    Raises:
      SettingError: a sparsity outside [0, 1], an unknown scope.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = hydra(0.5)
      >>> trainable, state = pruner.init(jax.random.key(0), {"w": jnp.array([[1.0, -4.0]] * 6)})
      >>> trainable["scores"]["w"][0].tolist(), pruner.effective(trainable, state)["w"][0].tolist()
      ([0.25, -1.0], [0.0, -4.0])

    References:
      Sehwag et al. 2020, "HYDRA: Pruning Adversarially Robust Neural Networks" (inspire-group/hydra).
    """
    return score_search(sparsity, _begin, train_batch_norm=True, scope=scope, prunable=prunable, structures=structures)


def _begin(key: Array, kernel: Array) -> tuple[Array, Array]:
    return kernel, scaled_scores(kernel)


def scaled_scores(kernel: Array) -> Array:
    """``√(6 / fan_in) · w / max|w|``, 0 where all weights are.

    Example:
      >>> import jax.numpy as jnp
      >>> scaled_scores(jnp.array([[2.0, -1.0]] * 6))[0].tolist()
      [1.0, -0.5]
    """
    kernel = kernel.astype(jnp.float32)
    largest = jnp.max(jnp.abs(kernel))
    return math.sqrt(6.0 / fan_in(kernel)) * kernel / jnp.where(largest > 0, largest, 1.0)
