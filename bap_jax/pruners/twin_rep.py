"""TwinRep: every kernel is the product of two trained ones, which drives small weights to zero; then the smallest are cut."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, apply_masks, full_masks, kernels, masks_from_scores, prunable_leaves
from bap_jax.mathematics.sparsity import kept_count
from bap_jax.mathematics.top_k import top_k
from bap_jax.pruners._given import begin_masks, bound_of, bounded, within
from bap_jax.pruners._scores import check_sparsity, kaiming_uniform
from bap_jax.types import Array, Params, Pruner, PyTree


class TwinRepState(NamedTuple):
    """The masks, all True until the cut."""

    masks: PyTree
    sparsity: Array  # float32 scalar
    bound: PyTree  # of masks the network began with, or ()


def twin_rep(
    sparsity: float,
    *,
    begin_step: int,
    structure: Literal["irregular", "filter"] = "irregular",
    initial: Literal["kaiming", "root"] = "kaiming",
    prunable: Prunable = kernels,
) -> Pruner:
    """``w = A ⊙ B ⊙ M``; at ``begin_step`` M keeps the largest ``|A ⊙ B|`` of the whole network, A and B are trained throughout.

    Weight decay on both factors is what makes products sparse: it is the optimiser's. Published: 100 epochs of adversarial
    training (PGD, or TRADES β 6) with the cut at epoch 10, SGD .1 times .1 at 70 % and 85 %, weight decay 2e-4. At the end the
    product is the weight.

    What differs: of filters, theirs zeroes rows of B once, without a mask, so that they may return; ours stay pruned.
    ``initial="root"`` is ours.

    Args:
      sparsity: of all prunable weights together, or of all filters, in [0, 1].
      begin_step: the step whose update cuts.
      structure: ``"filter"`` keeps the filters of largest L2 norm of ``A ⊙ B`` in the whole network, at least one of each layer.
      initial: ``"kaiming"``: A is the network's own weight, B uniform in ``±1/√fan_in`` (Kaiming's with a = √5), as published;
        so the network begins as another one. ``"root"``: A is ``sgn(w) √|w|`` and B is ``√|w|``: it begins as it was, for
        networks that were trained before.
      prunable: ``(path, leaf) -> bool``.

    Returns:
      A :class:`bap_jax.types.Pruner` that trains ``{"weights": A, "scores": B}``, with a scalar 0 in B where a leaf is not
      prunable, and whose state is a :class:`TwinRepState`. ``settled`` from the cut on.

    Raises:
      SettingError: a setting outside its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = twin_rep(0.5, begin_step=0, initial="root")
      >>> trainable, state = pruner.init(jax.random.key(0), {"w": jnp.array([[-4.0, 1.0]])})
      >>> trainable, state = pruner.update(jax.random.key(1), 0, trainable, None, state)
      >>> pruner.finish(trainable, state)[0]["w"].tolist()
      [[-4.0, 0.0]]

    References:
      Li et al. 2023, "Learning Adversarially Robust Sparse Networks via Weight Reparameterization" (UCAS-LCH/Twin-Rep).
    """
    check_sparsity(sparsity)
    if not isinstance(begin_step, int) or begin_step < 0:
        raise SettingError("begin_step", begin_step, "a step of at least 0")
    if structure not in ("irregular", "filter"):
        raise SettingError("structure", structure, "'irregular' or 'filter'")
    if initial not in ("kaiming", "root"):
        raise SettingError("initial", initial, "'kaiming' or 'root'")

    def product(trainable: PyTree, masks: PyTree) -> Params:
        def folded(first: Array, second: Array, mask: Array) -> Array:
            return first * second.astype(first.dtype) if mask.ndim else first

        return jax.tree.map(folded, trainable["weights"], trainable["scores"], masks)

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[PyTree, TwinRepState]:
        bound = bound_of(params, masks, prunable)
        params = bounded(params, bound)
        leaves, treedef = jax.tree.flatten(params)
        chosen = prunable_leaves(params, prunable)
        keys = jax.random.split(key, len(leaves))
        second = [jnp.float32(0.0)] * len(leaves)
        for i, leaf in enumerate(leaves):
            if chosen[i] and initial == "root":
                second[i] = jnp.sqrt(jnp.abs(leaf))
                leaves[i] = jnp.sign(leaf) * second[i]
            elif chosen[i]:
                second[i] = kaiming_uniform(keys[i], leaf)
        trainable = {"weights": jax.tree.unflatten(treedef, leaves), "scores": jax.tree.unflatten(treedef, second)}
        return trainable, TwinRepState(begin_masks(params, bound, prunable), jnp.float32(sparsity), bound)

    def effective(trainable: PyTree, state: TwinRepState) -> Params:
        return apply_masks(product(trainable, state.masks), state.masks)

    def update(key: Array, step: Array, trainable: PyTree, dense_grads: Params, state: TwinRepState):
        sizes = jax.tree.map(jnp.abs, product(trainable, state.masks))
        if structure == "filter":
            masks = _filters(sizes, state.sparsity, prunable, state.bound)
        else:
            masks = masks_from_scores(sizes, state.sparsity, scope="global", prunable=prunable, within=within(state.bound))
        return trainable, state._replace(masks=masks)

    return Pruner(
        init=init,
        effective=effective,
        penalty=lambda step, trainable, state: jnp.float32(0.0),
        due=lambda step, state: jnp.asarray(step) == begin_step,
        update=update,
        project=lambda trainable, state: trainable,
        finish=lambda trainable, state: (effective(trainable, state), state.masks),
        settled=lambda step, state: jnp.asarray(step) > begin_step,
    )


def _filters(sizes: Params, sparsity: Array, prunable: Prunable, bound: PyTree) -> PyTree:
    """Masks of the filters of largest norm in the whole network; the largest of each layer is always kept."""
    caps = full_masks(sizes, prunable) if bound == () else bound
    sizes = bounded(sizes, caps)
    leaves, chosen = jax.tree.leaves(sizes), prunable_leaves(sizes, prunable)
    norms = []
    for leaf, yes in zip(leaves, chosen, strict=True):
        if yes:
            norm = jnp.sqrt(jnp.sum(leaf.astype(jnp.float32) ** 2, axis=tuple(range(leaf.ndim - 1)), keepdims=True))
            (best,) = top_k([norm], 1)
            norms.append(jnp.where(best, jnp.inf, norm))
    kept = iter(top_k(norms, kept_count(sum(norm.size for norm in norms), sparsity)))
    masks = [next(kept) & cap if yes else cap for cap, yes in zip(jax.tree.leaves(caps), chosen, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(sizes), masks)
