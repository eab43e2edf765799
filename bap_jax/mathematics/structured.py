"""Masks whose weights stand or fall together: whole filters, or whole columns of a layer's matrix."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, kernels, masks_from_scores, prunable_leaves
from bap_jax.mathematics.sparsity import kept_count
from bap_jax.mathematics.top_k import top_k
from bap_jax.types import Array, Params, PyTree

Structure = Literal["irregular", "column", "filter"]


def structured_masks(
    params: Params,
    sparsity: float | Array,
    *,
    structure: Structure = "irregular",
    prunable: Prunable = kernels,
    within: PyTree | None = None,
) -> PyTree:
    """Masks that keep, in each layer, what has the largest L2 norm: single weights, filters, or columns.

    A layer's kernel [..., inputs, outputs] is seen as a matrix with a row for each output: ``"filter"`` keeps whole rows (an
    output channel with all its weights), ``"column"`` whole columns (one position and input channel, the same for all outputs),
    ``"irregular"`` single weights. Applied to the weights, this is the Euclidean projection on the networks of that structure.

    Args:
      params: a pytree of float arrays.
      sparsity: of the groups of each layer, in [0, 1]; may be traced.
      structure: ``"irregular"``, ``"column"`` or ``"filter"``.
      prunable: ``(path, leaf) -> bool``; leaves of at least two dimensions.
      within: a mask tree (:func:`bap_jax.mathematics.masks.masks_like`): what it prunes is not kept and counts as zero.

    Returns:
      A mask tree. Of n groups exactly ``kept_count(n, sparsity)`` are kept, ties to the lower index; where ``within`` leaves
      fewer groups than that, those.

    Raises:
      SettingError: an unknown structure, nothing prunable, a prunable leaf of one dimension, a Python sparsity outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[3.0, 1.0, 2.0], [0.0, 4.0, 1.0]])}  # two inputs, three outputs
      >>> structured_masks(params, 1 / 3, structure="filter")["kernel"].tolist()
      [[True, True, False], [True, True, False]]
      >>> structured_masks(params, 0.5, structure="column")["kernel"].tolist()
      [[False, False, False], [True, True, True]]

    References:
      Zhang et al. 2018, "A Systematic DNN Weight Pruning Framework Using Alternating Direction Method of Multipliers"; Ye et al.
      2019, "Adversarial Robustness vs. Model Compression, or Both?".
    """
    if structure not in ("irregular", "column", "filter"):
        raise SettingError("structure", structure, "'irregular', 'column' or 'filter'")
    if structure == "irregular":
        return masks_from_scores(jax.tree.map(jnp.abs, params), sparsity, prunable=prunable, within=within)
    leaves, treedef = jax.tree.flatten(params)
    chosen = prunable_leaves(params, prunable)
    caps = [jnp.bool_(True)] * len(leaves) if within is None else jax.tree.leaves(within)
    masks = [
        _groups(leaf, cap, sparsity, structure) if yes else jnp.bool_(True)
        for leaf, cap, yes in zip(leaves, caps, chosen, strict=True)
    ]
    return jax.tree.unflatten(treedef, masks)


def _groups(kernel: Array, cap: Array, sparsity: float | Array, structure: Structure) -> Array:
    """The mask of one layer."""
    if kernel.ndim < 2:
        raise SettingError("params", list(kernel.shape), "prunable leaves of at least two dimensions, which have filters")
    cap = jnp.broadcast_to(cap, kernel.shape)
    axes = tuple(range(kernel.ndim - 1)) if structure == "filter" else (kernel.ndim - 1,)
    kernel = jnp.where(cap, kernel, 0.0).astype(jnp.float32)
    largest = jnp.max(jnp.abs(kernel))  # squares of small weights would vanish
    norms = jnp.sum((kernel / jnp.where(largest > 0, largest, 1.0)) ** 2, axis=axes, keepdims=True)
    norms = jnp.where(jnp.any(cap, axis=axes, keepdims=True), norms, -1.0)
    (kept,) = top_k([norms], kept_count(norms.size, sparsity))
    return kept & cap
