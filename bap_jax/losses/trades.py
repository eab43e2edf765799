"""TRADES: the clean loss, and how far the prediction moves under attack."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from bap_jax.losses._common import check_beta, check_fraction, correct, one_hot, smoothed_cross_entropy
from bap_jax.mathematics.objectives import kl_divergence
from bap_jax.types import Adversarial, Array, Batch, Loss


class TRADESState(NamedTuple):
    """The factor of the divergence; a leaf, so that a sweep may batch it."""

    beta: Array  # float32 scalar


def trades(*, beta: float = 6.0, label_smoothing: float = 0.0) -> Loss:
    """``CE(z(x), y) + beta * KL(p(x) || p(x'))``, means over the batch, with gradients through both predictions.

    The examples x' that belong to it maximise the same divergence:
    :func:`bap_jax.attacks.friendly_pgd.friendly_pgd` with ``objective="kl", start="normal"``.

    Args:
      beta: the factor, at least 0.
      label_smoothing: in [0, 1], of the labels in the cross-entropy; theirs is 0.

    Returns:
      A :class:`bap_jax.types.Loss` whose state is a :class:`TRADESState`. Its metrics: ``clean_loss``, ``clean_accuracy``,
      ``divergence``, ``adversarial_accuracy``.

    Raises:
      SettingError: a number outside its range.

    Example:
      >>> float(trades().init(None, None, None).beta)
      6.0

    References:
      Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy"; public repository
      yaodongyu/TRADES.
    """
    check_beta(beta)
    check_fraction("label_smoothing", label_smoothing)

    def value(forward, batch: Batch, adversarial: Adversarial, state: TRADESState, *, step, mean, gather):
        clean, attacked = (outputs.logits for outputs in forward(batch.images, adversarial.images))
        targets = one_hot(clean, batch.labels)
        clean_loss = mean(smoothed_cross_entropy(clean, targets, label_smoothing), batch.weight)
        divergence = mean(kl_divergence(clean, attacked) * adversarial.weight, batch.weight)
        metrics = {
            "clean_loss": clean_loss,
            "clean_accuracy": mean(correct(clean, batch.labels), batch.weight),
            "divergence": divergence,
            "adversarial_accuracy": mean(correct(attacked, batch.labels), adversarial.weight),
        }
        return clean_loss + state.beta * divergence, metrics

    return Loss(lambda params, model_state, info: TRADESState(jnp.float32(beta)), value)
