"""What the losses have in common."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from bap_jax.errors import SettingError
from bap_jax.inputs import require_labels, require_logits
from bap_jax.mathematics.objectives import soft_cross_entropy
from bap_jax.types import Array


def check_fraction(name: str, value: float) -> None:
    """Raises SettingError unless a number is in [0, 1]."""
    if not 0 <= value <= 1:
        raise SettingError(name, value, "a number in [0, 1]")


def check_beta(value: float) -> None:
    """Raises SettingError unless the factor of a regulariser is finite and not negative."""
    if not 0 <= value < float("inf"):
        raise SettingError("beta", value, "a finite number of at least 0")


def check_predictions(logits: Array, labels: Array) -> None:
    """Raises SettingError unless logits are [B, K] of at least two classes and concrete labels are among them."""
    require_logits(logits, labels.shape[0], "logits")
    require_labels(labels, logits.shape[0], logits.shape[1])


def one_hot(logits: Array, labels: Array) -> Array:
    """[B, K] targets of integer labels [B].

    Raises:
      SettingError: something else than logits of at least two classes, or labels that are none of them.
    """
    check_predictions(logits, labels)
    return jnp.eye(logits.shape[-1])[labels]


def smoothed_cross_entropy(logits: Array, targets: Array, label_smoothing: float) -> Array:
    """[B] cross-entropy against smoothed targets [B, K].

    Raises:
      SettingError: a budget's targets that are no distributions over the classes of the logits.
    """
    return soft_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def correct(logits: Array, labels: Array) -> Array:
    """[B] 1 where the largest logit is the label's, else 0."""
    check_predictions(logits, labels)
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
