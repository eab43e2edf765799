"""Cross-entropy of the clean half, of the adversarial half, or of both in given shares."""

from __future__ import annotations

from bap_jax.losses._common import check_fraction, correct, one_hot, smoothed_cross_entropy
from bap_jax.types import Adversarial, Array, Batch, Loss


def clean(*, label_smoothing: float = 0.1) -> Loss:
    """Cross-entropy on the clean images alone.

    Args:
      label_smoothing: in [0, 1]; 0.1 is the authors' setting.

    Raises:
      SettingError: label smoothing outside [0, 1].

    Returns:
      A :class:`bap_jax.types.Loss` without state. Its metrics: ``clean_accuracy``.

    Example:
      >>> clean().init(None, None, None)
      ()
    """
    check_fraction("label_smoothing", label_smoothing)

    def value(forward, batch: Batch, adversarial: Adversarial, state, *, step, mean, gather):
        (outputs,) = forward(batch.images)
        targets = one_hot(outputs.logits, batch.labels)
        loss = mean(smoothed_cross_entropy(outputs.logits, targets, label_smoothing), batch.weight)
        return loss, {"clean_accuracy": mean(correct(outputs.logits, batch.labels), batch.weight)}

    return Loss(lambda params, model_state, info: (), value)


def mix(*, adversarial_weight: float = 0.5, label_smoothing: float = 0.1) -> Loss:
    """``(1 - a) * CE(clean) + a * CE(adversarial)``; a = 1/2 is the authors' loss of blind adversarial pruning.

    Both are means over the batch: an adversarial example of weight 0 counts there with a loss of 0. With a = 1 the clean images
    take no part, not even in the BatchNorm statistics.

    Args:
      adversarial_weight: a, in [0, 1].
      label_smoothing: in [0, 1], of the clean labels and of the adversarial targets.

    Raises:
      SettingError: a number outside its range.

    Returns:
      A :class:`bap_jax.types.Loss` without state. Its metrics: ``adversarial_loss``, ``adversarial_accuracy`` (of the examples
      with a weight), and for a < 1 ``clean_loss`` and ``clean_accuracy``.

    Example:
      >>> mix(adversarial_weight=1.0).init(None, None, None)
      ()

    References:
      Xie et al., Blind adversarial pruning, 2020, arXiv 2004.05913.
    """
    check_fraction("adversarial_weight", adversarial_weight)
    check_fraction("label_smoothing", label_smoothing)

    def value(forward, batch: Batch, adversarial: Adversarial, state, *, step, mean, gather):
        def adversarial_part(logits: Array) -> tuple[Array, dict[str, Array]]:
            losses = smoothed_cross_entropy(logits, adversarial.targets, label_smoothing)
            loss = mean(losses * adversarial.weight, batch.weight)
            accuracy = mean(correct(logits, batch.labels), adversarial.weight)
            return loss, {"adversarial_loss": loss, "adversarial_accuracy": accuracy}

        if adversarial_weight == 1:
            (outputs,) = forward(adversarial.images)
            return adversarial_part(outputs.logits)
        clean_outputs, adversarial_outputs = forward(batch.images, adversarial.images)
        targets = one_hot(clean_outputs.logits, batch.labels)
        clean_loss = mean(smoothed_cross_entropy(clean_outputs.logits, targets, label_smoothing), batch.weight)
        adversarial_loss, metrics = adversarial_part(adversarial_outputs.logits)
        metrics |= {
            "clean_loss": clean_loss,
            "clean_accuracy": mean(correct(clean_outputs.logits, batch.labels), batch.weight),
        }
        return (1 - adversarial_weight) * clean_loss + adversarial_weight * adversarial_loss, metrics

    return Loss(lambda params, model_state, info: (), value)


def madry(*, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy on the adversarial images alone: :func:`mix` with a = 1, under the name that it is known by.

    Args:
      label_smoothing: in [0, 1]; theirs is 0.

    Returns:
      A :class:`bap_jax.types.Loss`, see :func:`mix`.

    Example:
      >>> madry().init(None, None, None)
      ()

    References:
      Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks".
    """
    return mix(adversarial_weight=1.0, label_smoothing=label_smoothing)


def mma(*, label_smoothing: float = 0.0) -> Loss:
    """The loss of max-margin adversarial training: :func:`mix` with a = 2/3.

    Its budget, :func:`bap_jax.budgets.mma`, says which examples the adversarial part is about: 1/3 CE(x) + 2/3 (CE(x + d_i) where
    x is classified correctly with a margin below d_max, CE(x) where it is misclassified, 0 elsewhere), in the mean over the
    batch.

    Args:
      label_smoothing: in [0, 1]; theirs is 0.

    Returns:
      A :class:`bap_jax.types.Loss`, see :func:`mix`.

    Example:
      >>> mma().init(None, None, None)
      ()

    References:
      Ding et al. 2020, "MMA Training: Direct Input Space Margin Maximization through Adversarial Training"; public repository
      BorealisAI/mma_training.
    """
    return mix(adversarial_weight=2 / 3, label_smoothing=label_smoothing)
