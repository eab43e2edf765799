"""What the losses have in common."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from bap_jax.errors import SettingError
from bap_jax.types import Array


def check_fraction(name: str, value: float) -> None:
    """Raises SettingError unless a number is in [0, 1]."""
    if not 0 <= value <= 1:
        raise SettingError(name, value, "a number in [0, 1]")


def check_beta(value: float) -> None:
    """Raises SettingError unless the factor of a regulariser is finite and not negative."""
    if not 0 <= value < float("inf"):
        raise SettingError("beta", value, "a finite number of at least 0")


def one_hot(logits: Array, labels: Array) -> Array:
    """[B, K] targets of integer labels [B]."""
    return jnp.eye(logits.shape[-1])[labels]


def smoothed_cross_entropy(logits: Array, targets: Array, label_smoothing: float) -> Array:
    """[B] cross-entropy against smoothed targets [B, K]."""
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def correct(logits: Array, labels: Array) -> Array:
    """[B] 1 where the largest logit is the label's, else 0."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
