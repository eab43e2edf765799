"""MART: TRADES' divergence, weighing most where the clean image is misclassified, and a boosted adversarial loss."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.losses._common import check_beta, check_fraction, correct, one_hot, smoothed_cross_entropy
from bap_jax.mathematics.objectives import kl_divergence
from bap_jax.types import Adversarial, Array, Batch, Loss


class MARTState(NamedTuple):
    """The factor of the divergence; a leaf, so that a sweep may batch it."""

    beta: Array  # float32 scalar


def mart(*, beta: float = 6.0, label_smoothing: float = 0.0) -> Loss:
    """``BCE(p(x'), y) + beta * KL(p(x) || p(x')) * (1 - p_y(x))``, a mean over the batch in which nothing is held fixed.

    The boosted cross-entropy is ``-log p'_y - log(1.0001 - max_{k != y} p'_k)``, the second factor of the divergence
    ``1.0000001 - p_y(x)``.

    Args:
      beta: the factor, at least 0.
      label_smoothing: in [0, 1], of the targets in the first term; theirs is 0.

    Returns:
      A :class:`bap_jax.types.Loss` whose state is a :class:`MARTState`. Its metrics: ``adversarial_loss`` (the boosted
      cross-entropy), ``adversarial_accuracy``, ``divergence`` (weighted as in the loss), ``clean_accuracy``.

    Raises:
      SettingError: a number outside its range.

    Example:
      >>> float(mart().init(None, None, None).beta)
      6.0

    References:
      Wang et al. 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples"; public repository
      YisenWang/MART.
    """
    check_beta(beta)
    check_fraction("label_smoothing", label_smoothing)

    def value(forward, batch: Batch, adversarial: Adversarial, state: MARTState, *, step, mean, gather):
        clean, attacked = (outputs.logits for outputs in forward(batch.images, adversarial.images))
        labels = one_hot(clean, batch.labels)
        rival = jnp.max(jnp.where(labels > 0, 0.0, jax.nn.softmax(attacked)), axis=-1)
        boosted = smoothed_cross_entropy(attacked, adversarial.targets, label_smoothing) - jnp.log(1.0001 - rival + 1e-12)
        believed = jnp.sum(labels * jax.nn.softmax(clean), axis=-1)
        loss = mean(boosted * adversarial.weight, batch.weight)
        divergence = mean(kl_divergence(clean, attacked) * (1.0000001 - believed) * adversarial.weight, batch.weight)
        metrics = {
            "adversarial_loss": loss,
            "adversarial_accuracy": mean(correct(attacked, batch.labels), adversarial.weight),
            "divergence": divergence,
            "clean_accuracy": mean(correct(clean, batch.labels), batch.weight),
        }
        return loss + state.beta * divergence, metrics

    return Loss(lambda params, model_state, info: MARTState(jnp.float32(beta)), value)
