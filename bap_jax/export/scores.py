"""The mask that follows from the scores by which HYDRA and edge-popup choose weights."""

from __future__ import annotations

import numpy as np

from bap_jax.errors import SettingError


def mask_of_scores(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Keeps a layer's weights of the largest absolute scores: all but ⌊sparsity·n⌋ of n, as HYDRA's code counts them.

    Args:
      scores: of one layer, of any shape.
      sparsity: the fraction that is pruned, in [0, 1).

    Returns:
      bool, True where a weight is kept; among equal scores the later ones are.

    Raises:
      SettingError: a sparsity outside [0, 1).

    Example:
      >>> mask_of_scores(np.array([0.5, -2.0, 0.1, 1.0]), 0.5).tolist()
      [False, True, False, True]

    References:
      Sehwag et al. 2020, "HYDRA: Pruning Adversarially Robust Neural Networks" (public code: inspire-group/hydra); Ramanujan et
      al. 2020, "What's Hidden in a Randomly Weighted Neural Network?".
    """
    if not 0 <= sparsity < 1:
        raise SettingError("sparsity", sparsity, "a fraction ≥ 0 and < 1")
    order = np.argsort(np.abs(scores), axis=None, kind="stable")
    kept = np.ones(scores.size, bool)
    kept[order[: int(sparsity * scores.size)]] = False
    return kept.reshape(scores.shape)
