"""Masks that a network began with: an upper bound, kept in a pruner's state as a mask tree, or ``()`` where there are none."""

from __future__ import annotations

from bap_jax.mathematics.masks import Prunable, apply_masks, full_masks, masks_like
from bap_jax.types import Params, PyTree


def bound_of(params: Params, masks: PyTree | None, prunable: Prunable) -> PyTree:
    """What ``init(key, params, masks)`` keeps of the masks it is given.

    Raises:
      SettingError: masks that do not fit, or that prune what this pruner does not.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.mathematics.masks import kernels
      >>> bound_of({"w": jnp.ones((1, 1))}, None, kernels)
      ()
    """
    return () if masks is None else masks_like(params, masks, prunable)


def within(bound: PyTree) -> PyTree | None:
    """The bound as :func:`bap_jax.mathematics.masks.masks_from_scores` takes it."""
    return None if bound == () else bound


def begin_masks(params: Params, bound: PyTree, prunable: Prunable) -> PyTree:
    """The masks of a network of which nothing has been pruned yet beyond the bound."""
    return full_masks(params, prunable) if bound == () else bound


def bounded(params: Params, bound: PyTree) -> Params:
    """The weights, those outside the bound zero."""
    return params if bound == () else apply_masks(params, bound)
