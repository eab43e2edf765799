"""An optimiser of its own for each part of what is trained."""

from __future__ import annotations

import jax
import optax

from bap_jax.types import PyTree

PARTS = ("weights", "scores", "rates")  # the keys of a pruner's trainable, where that is not the weights themselves


def has_parts(trainable: PyTree) -> bool:
    """Whether what is trained is more than the weights themselves: a dict of parts.

    Example:
      >>> has_parts({"scores": 1.0, "weights": 2.0}), has_parts({"kernel": 1.0})
      (True, False)
    """
    return isinstance(trainable, dict) and bool(trainable) and set(trainable) <= set(PARTS)


def by_part(
    weights: optax.GradientTransformation,
    *,
    scores: optax.GradientTransformation | None = None,
    rates: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Optimises scores and rates otherwise than weights, e.g. at another learning rate: :func:`optax.multi_transform`.

    Args:
      weights: for the part ``weights`` of a pruner's trainable, or for all of it where it has no parts.
      scores, rates: for these parts; by default as the weights.

    Returns:
      An optax transformation.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer = by_part(optax.sgd(1.0), scores=optax.sgd(0.25))
      >>> trainable = {"weights": {"w": jnp.ones(1)}, "scores": {"w": jnp.ones(1)}}
      >>> updates, _ = optimizer.update(trainable, optimizer.init(trainable), trainable)
      >>> updates["weights"]["w"].item(), updates["scores"]["w"].item()
      (-1.0, -0.25)
    """
    given = {"weights": weights, "scores": scores or weights, "rates": rates or weights}

    def labels(tree: PyTree) -> PyTree:
        return {name: name for name in tree} if has_parts(tree) else jax.tree.map(lambda _: "weights", tree)

    return optax.multi_transform(given, labels)
