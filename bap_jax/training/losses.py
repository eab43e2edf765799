"""What training minimises: loss slots over clean and adversarial outputs."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from bap_jax.errors import SettingError
from bap_jax.types import Adversarial, Array, Batch, Loss


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise SettingError(name, value, "a number in [0, 1]")


def _cross_entropy(logits: Array, targets: Array, label_smoothing: float) -> Array:
    """[B] cross-entropy against smoothed targets [B, K]."""
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def _correct(logits: Array, labels: Array) -> Array:
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def clean(*, label_smoothing: float = 0.1) -> Loss:
    """Cross-entropy on the clean images alone.

    Args:
      label_smoothing: in [0, 1]; 0.1 is the authors' setting.

    Raises:
      SettingError: label smoothing outside [0, 1].

    Returns:
      A :class:`bap_jax.types.Loss` without state. Its metrics: ``clean_accuracy``.

    >>> clean().init(None, None)
    ()
    """
    _check_fraction("label_smoothing", label_smoothing)

    def value(forward, batch: Batch, adversarial: Adversarial, state, *, step, mean, gather):
        (outputs,) = forward(batch.images)
        targets = jnp.eye(outputs.logits.shape[-1])[batch.labels]
        loss = mean(_cross_entropy(outputs.logits, targets, label_smoothing), batch.weight)
        return loss, {"clean_accuracy": mean(_correct(outputs.logits, batch.labels), batch.weight)}

    return Loss(lambda params, model_state: (), value)


def mix(*, adversarial_weight: float = 0.5, label_smoothing: float = 0.1) -> Loss:
    """``(1 - a) * CE(clean) + a * CE(adversarial)``; a = 1/2 is the authors' loss, a = 1 is Madry's.

    With a = 1 the clean images take no part, not even in the BatchNorm statistics.

    Args:
      adversarial_weight: a, in [0, 1].
      label_smoothing: in [0, 1], of the clean labels and of the adversarial targets.

    Raises:
      SettingError: a number outside its range.

    Returns:
      A :class:`bap_jax.types.Loss` without state. Its metrics: ``adversarial_loss``, ``adversarial_accuracy``, and for a < 1
      ``clean_loss`` and ``clean_accuracy``.

    >>> mix(adversarial_weight=1.0).init(None, None)
    ()

    References:
      Xie et al., Blind adversarial pruning, 2020, arXiv 2004.05913; Madry et al., 2018.
    """
    _check_fraction("adversarial_weight", adversarial_weight)
    _check_fraction("label_smoothing", label_smoothing)

    def value(forward, batch: Batch, adversarial: Adversarial, state, *, step, mean, gather):
        def adversarial_part(logits: Array) -> tuple[Array, dict[str, Array]]:
            loss = mean(_cross_entropy(logits, adversarial.targets, label_smoothing), adversarial.weight)
            accuracy = mean(_correct(logits, batch.labels), adversarial.weight)
            return loss, {"adversarial_loss": loss, "adversarial_accuracy": accuracy}

        if adversarial_weight == 1:
            (outputs,) = forward(adversarial.images)
            return adversarial_part(outputs.logits)
        clean_outputs, adversarial_outputs = forward(batch.images, adversarial.images)
        targets = jnp.eye(clean_outputs.logits.shape[-1])[batch.labels]
        clean_loss = mean(_cross_entropy(clean_outputs.logits, targets, label_smoothing), batch.weight)
        adversarial_loss, metrics = adversarial_part(adversarial_outputs.logits)
        metrics |= {
            "clean_loss": clean_loss,
            "clean_accuracy": mean(_correct(clean_outputs.logits, batch.labels), batch.weight),
        }
        return (1 - adversarial_weight) * clean_loss + adversarial_weight * adversarial_loss, metrics

    return Loss(lambda params, model_state: (), value)
