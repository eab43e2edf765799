"""No adversarial examples: the clean images once more, for training without an attack."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bap_jax.inputs import require_labels, require_logits
from bap_jax.types import Adversarial, Array, Batch, Budget, Gather, LogitsFn


def targets_of(logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
    """One-hot labels [B, K], the number of classes read from the shape of the logits (nothing is computed).

    Raises:
      SettingError: something else than logits of at least two classes, or labels that are none of them.
    """
    logits = jax.eval_shape(logits_fn, images)
    require_logits(logits, images.shape[0])
    require_labels(labels, logits.shape[0], logits.shape[1])
    return jax.nn.one_hot(labels, logits.shape[-1])


def none() -> Budget:
    """Every budget is 0 and the adversarial half has no weight.

    Example:
      >>> none().init(None)
      ()
    """

    def perturb(keys: Array, logits_fn: LogitsFn, batch: Batch, state: tuple, *, step: Array, gather: Gather):
        zeros = jnp.zeros(batch.labels.shape, jnp.float32)
        return Adversarial(batch.images, zeros, targets_of(logits_fn, batch.images, batch.labels), zeros), state

    return Budget(init=lambda info: (), perturb=perturb)
