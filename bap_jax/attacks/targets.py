"""Which wrong class a targeted attack wants."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import check_keys
from bap_jax.errors import SettingError
from bap_jax.inputs import require_labels, require_logits
from bap_jax.types import Array

TargetRule = Literal["random", "most_likely", "least_likely", "next"]


def choose_targets(logits: Array, labels: Array, rule: TargetRule, keys: Array | None = None) -> Array:
    """A wrong class for every image.

    Args:
      logits: [B, K] of the images themselves.
      labels: [B] integers, the true classes.
      rule: ``random``, uniform among the wrong classes; ``most_likely`` or ``least_likely``, the wrong class of the largest or
        smallest logit, the first of equal ones; ``next``, (label + 1) mod K.
      keys: [B] typed keys, for ``random``.

    Returns:
      [B] int32, nowhere the label.

    Raises:
      SettingError: an unknown rule, no keys for ``random``, or a wrong shape or dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.array([[3.0, 1.0, 2.0]]), jnp.array([0])
      >>> [int(choose_targets(logits, labels, rule)[0]) for rule in ("most_likely", "least_likely", "next")]
      [2, 1, 1]
    """
    if rule not in get_args(TargetRule):
        raise SettingError("targets", rule, "one of " + ", ".join(get_args(TargetRule)))
    require_logits(logits, len(labels), "logits")
    num_classes = logits.shape[-1]
    require_labels(labels, len(labels), num_classes)
    if rule == "next":
        return ((labels + 1) % num_classes).astype(jnp.int32)
    if rule == "random":
        check_keys(keys, logits)
        steps = jax.vmap(lambda key: jax.random.randint(key, (), 1, num_classes))(keys)
        return ((labels + steps) % num_classes).astype(jnp.int32)
    sign = 1 if rule == "most_likely" else -1
    others = jnp.where(jnp.arange(num_classes)[None, :] == labels[:, None], -jnp.inf, sign * logits)
    return jnp.argmax(others, axis=-1).astype(jnp.int32)
