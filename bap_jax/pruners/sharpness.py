"""Flat minima: a pruner's gradient is taken where a small shift makes the loss worst, in the space of scores or of weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.types import Array, Pruner, PyTree


def s2ap(pruner: Pruner, *, gamma: float = 5e-3) -> Pruner:
    """Sharpness in score space: ``min_s max_z L(w ⊙ M(s + z))`` with ``‖z_l‖ ≤ γ ‖s_l‖`` in each layer.

    The inner maximum is one step along the gradient: ``z_l = γ ‖s_l‖ g_l / ‖g_l‖``; the shifted scores choose the mask.
    Known of the original: the objective and its constraint. Not known, and ours: γ
    (as large as that of :func:`awp`), the single step, no warm-up.

    Args:
      pruner: one that trains scores, e.g. :func:`bap_jax.pruners.hydra` or :func:`bap_jax.pruners.harp`.
      gamma: γ > 0.

    Returns:
      The same pruner with ``ascend``.

    Raises:
      SettingError: a gamma that is not positive, a pruner that shifts already; on ``ascend``, one that trains no scores.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax.pruners.hydra import hydra
      >>> pruner = s2ap(hydra(0.5), gamma=0.1)
      >>> trainable, state = pruner.init(jax.random.key(0), {"w": jnp.array([[3.0, 4.0]] * 6)})
      >>> gradients = jax.tree.map(jnp.ones_like, trainable)
      >>> shift = pruner.ascend(trainable, gradients, state)["scores"]["w"] - trainable["scores"]["w"]
      >>> norm = jnp.linalg.norm
      >>> round(float(norm(shift) / norm(trainable["scores"]["w"])), 4)
      0.1

    References:
      Piras et al. 2025, "S2AP: Score-space Sharpness Minimization for Adversarial Pruning", arXiv 2510.18381.
    """
    _check(pruner, gamma)

    def ascend(trainable: PyTree, gradients: PyTree, state: PyTree) -> PyTree:
        if not isinstance(trainable, dict) or "scores" not in trainable:
            raise SettingError("pruner", type(state).__name__, "one that trains scores, e.g. hydra, harp or edge_popup")
        shifted = jax.tree.map(lambda s, g: _shift(s, g, gamma) if s.ndim else s, trainable["scores"], gradients["scores"])
        return trainable | {"scores": shifted}

    return pruner._replace(ascend=ascend)


def awp(pruner: Pruner, *, gamma: float = 5e-3) -> Pruner:
    """Adversarial weight perturbation: ``min_w max_v L(w + v)`` with ``‖v_l‖ ≤ γ ‖w_l‖`` in each layer.

    One step along the gradient, as published; kernels are shifted, biases and BatchNorm are not.

    Args:
      pruner: any that trains weights.
      gamma: γ > 0.

    Returns:
      The same pruner with ``ascend``.

    Raises:
      SettingError: a gamma that is not positive, a pruner that shifts already; on ``ascend``, one that trains no kernel.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax.pruners.dense import dense
      >>> pruner = awp(dense(), gamma=0.1)
      >>> weights, state = pruner.init(jax.random.key(0), {"w": jnp.array([[3.0, 4.0]])})
      >>> pruner.ascend(weights, {"w": jnp.array([[0.0, -2.0]])}, state)["w"].tolist()
      [[3.0, 3.5]]

    References:
      Wu et al. 2020, "Adversarial Weight Perturbation Helps Robust Generalization" (csdongxian/AWP).
    """
    _check(pruner, gamma)

    def ascend(trainable: PyTree, gradients: PyTree, state: PyTree) -> PyTree:
        parts = isinstance(trainable, dict) and set(trainable) <= {"weights", "scores", "rates"}
        weights, slopes = (trainable["weights"], gradients["weights"]) if parts else (trainable, gradients)
        if not any(leaf.ndim >= 2 for leaf in jax.tree.leaves(weights)):
            raise SettingError("pruner", type(state).__name__, "one that trains kernels; s2ap shifts scores")
        shifted = jax.tree.map(lambda w, g: _shift(w, g, gamma) if w.ndim >= 2 else w, weights, slopes)
        return trainable | {"weights": shifted} if parts else shifted

    return pruner._replace(ascend=ascend)


def _check(pruner: Pruner, gamma: float) -> None:
    if not 0 < gamma < float("inf"):
        raise SettingError("gamma", gamma, "a positive number")
    if pruner.ascend is not None:
        raise SettingError("pruner", "one that shifts its weights already", "one without ascend")


def _shift(leaf: Array, gradient: Array, gamma: float) -> Array:
    """A layer moved by γ times its norm along its gradient; where that is 0 it stays."""
    length = jnp.linalg.norm(gradient.astype(jnp.float32).ravel())
    size = gamma * jnp.linalg.norm(leaf.astype(jnp.float32).ravel())
    return leaf + (gradient * jnp.where(length > 0, size / jnp.where(length > 0, length, 1.0), 0.0)).astype(leaf.dtype)
