"""Scores → the k largest → masks, exactly k and without sorting.

A mask tree has the structure of ``params``: a bool array where a leaf is prunable (True = kept) and a scalar True where it is
not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.inputs import concrete
from bap_jax.mathematics.sparsity import erk_counts, kept_count
from bap_jax.mathematics.top_k import top_k
from bap_jax.types import Array, Params, PyTree

Prunable = Callable[[str, Array], bool]
Scope = Literal["layer", "global"]
Distribution = Literal["uniform", "erk"]


def kernels(path: str, leaf: Array) -> bool:
    """The default rule of what is prunable: floating-point leaves of two or more dimensions (kernels, never biases or BatchNorm).

    Example:
      >>> import jax.numpy as jnp
      >>> kernels("dense/kernel", jnp.zeros((2, 3))), kernels("dense/bias", jnp.zeros(3))
      (True, False)
    """
    return len(leaf.shape) >= 2 and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def convolutions(path: str, leaf: Array) -> bool:
    """The rule of methods that prune convolutions only: floating-point leaves of four dimensions, shortcuts and stem included.

    Example:
      >>> import jax.numpy as jnp
      >>> convolutions("conv1/kernel", jnp.zeros((3, 3, 1, 8))), convolutions("dense/kernel", jnp.zeros((2, 3)))
      (True, False)
    """
    return len(leaf.shape) == 4 and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def leaf_paths(tree: PyTree) -> list[str]:
    """The path of every leaf as ``a/b/c``, in tree order.

    Example:
      >>> leaf_paths({"a": {"b": 1.0}, "c": [2.0]})
      ['a/b', 'c/0']
    """
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def prunable_leaves(params: Params, prunable: Prunable = kernels) -> list[bool]:
    """Which leaves of ``params`` are prunable, in tree order.

    Raises:
      SettingError: none is.
    """
    chosen = [prunable(path, leaf) for path, leaf in zip(leaf_paths(params), jax.tree.leaves(params), strict=True)]
    if not any(chosen):
        raise SettingError(
            "params", leaf_paths(params), "at least one prunable leaf (by default: a kernel of two or more dimensions)"
        )
    return chosen


def full_masks(params: Params, prunable: Prunable = kernels) -> PyTree:
    """The masks of a dense network: everything kept.

    Example:
      >>> import jax.numpy as jnp
      >>> jax.tree.map(jnp.shape, full_masks({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}))
      {'bias': (), 'kernel': (2, 2)}
    """
    leaves, treedef = jax.tree.flatten(params)
    chosen = prunable_leaves(params, prunable)
    return jax.tree.unflatten(
        treedef, [jnp.ones(leaf.shape if yes else (), bool) for leaf, yes in zip(leaves, chosen, strict=True)]
    )


def masks_like(params: Params, masks: PyTree, prunable: Prunable = kernels) -> PyTree:
    """Given masks in the form of :func:`full_masks`: an array wherever a leaf is prunable, a scalar where it is not.

    Args:
      params: a pytree of arrays.
      masks: of the same structure: for every leaf a bool array of its shape, or a scalar for all of it.
      prunable: ``(path, leaf) -> bool``.

    Returns:
      A mask tree.

    Raises:
      SettingError: another structure or shape, or masks of a leaf that is not prunable; the first such leaf is named.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)}
      >>> jax.tree.map(lambda m: m.tolist(), masks_like(params, {"kernel": jnp.array(False), "bias": jnp.array(True)}))
      {'bias': True, 'kernel': [[False, False]]}
    """
    chosen, fitted, found = prunable_leaves(params, prunable), jax.tree.leaves(fitted_masks(params, masks)), []
    for path, leaf, mask, yes in zip(leaf_paths(params), jax.tree.leaves(params), fitted, chosen, strict=True):
        known = None if yes else concrete(mask)
        if known is not None and not known.all():
            raise SettingError(f"masks/{path}", "pruned weights", "none: this pruner does not prune that leaf")
        found.append(jnp.broadcast_to(mask, leaf.shape) if yes else jnp.bool_(True))
    return jax.tree.unflatten(jax.tree.structure(params), found)


def fitted_masks(params: Params, masks: PyTree) -> PyTree:
    """Given masks in the structure of the parameters: for every leaf bool, of its shape or a scalar for all of it.

    Raises:
      SettingError: they are not; the first leaf that differs is named.

    Example:
      >>> import jax.numpy as jnp
      >>> fitted_masks({"kernel": jnp.ones((1, 2))}, {"kernel": jnp.ones(2, bool)})
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: masks/kernel = 'bool[2]': expected bool[1, 2] or a bool scalar
    """
    wanted = dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))
    given = dict(zip(leaf_paths(masks), jax.tree.leaves(masks), strict=True))
    for path in [*wanted, *given]:
        if path not in given or path not in wanted:
            found = "no mask" if path not in given else "a mask"
            raise SettingError(f"masks/{path}", found, "a mask for every leaf of the parameters, and no other")
        mask, shape = given[path], jnp.shape(wanted[path])
        if jnp.result_type(mask) != jnp.bool_ or jnp.shape(mask) not in ((), shape):
            found = f"{jnp.result_type(mask)}{list(jnp.shape(mask))}"
            raise SettingError(f"masks/{path}", found, f"bool{list(shape)} or a bool scalar")
    return jax.tree.unflatten(jax.tree.structure(params), [jnp.asarray(given[path]) for path in wanted])


def masks_from_scores(
    scores: Params,
    sparsity: float | Array,
    *,
    scope: Scope = "layer",
    distribution: Distribution = "uniform",
    prunable: Prunable = kernels,
    within: PyTree | None = None,
) -> PyTree:
    """Masks that keep the highest scores at the given sparsity.

    Args:
      scores: a pytree of float arrays shaped like the parameters.
      sparsity: zeros / prunable, in [0, 1]; may be traced. With ``scope="layer"`` and ``distribution="uniform"`` also an array
        of one for every prunable leaf.
      scope: ``"global"`` compares all prunable leaves together; ``"layer"`` gives every leaf its own count.
      distribution: with ``scope="layer"``: ``"uniform"``, the same sparsity everywhere, or ``"erk"``, see
        :func:`bap_jax.mathematics.sparsity.erk_counts`.
      prunable: ``(path, leaf) -> bool``.
      within: a mask tree (:func:`masks_like`): what it prunes is not kept, however high its score; scores are above -infinity.

    Returns:
      A mask tree. Counts are exact (:func:`bap_jax.mathematics.sparsity.kept_count` of each leaf, or of the total for a global
      scope and for ERK); where ``within`` keeps fewer than that, of a leaf or of the total, all that it keeps.

    Raises:
      SettingError: unknown scope or distribution, ERK with a global scope, nothing prunable, a Python sparsity outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> masks_from_scores({"kernel": jnp.array([[4.0, 1.0], [2.0, 3.0]])}, 0.5)["kernel"].tolist()
      [[True, False], [False, True]]
    """
    if scope not in ("layer", "global"):
        raise SettingError("scope", scope, "'layer' or 'global'")
    if distribution not in ("uniform", "erk"):
        raise SettingError("distribution", distribution, "'uniform' or 'erk'")
    if scope == "global" and distribution != "uniform":
        raise SettingError("distribution", distribution, "'uniform' with scope = 'global', which has no counts per layer")
    leaves, treedef = jax.tree.flatten(scores)
    chosen = prunable_leaves(scores, prunable)
    picked = [leaf for leaf, yes in zip(leaves, chosen, strict=True) if yes]
    sizes = [leaf.size for leaf in picked]
    caps = None
    if within is not None:
        caps = [mask for mask, yes in zip(jax.tree.leaves(within), chosen, strict=True) if yes]
        picked = [jnp.where(cap, leaf, -jnp.inf) for cap, leaf in zip(caps, picked, strict=True)]
    if scope == "global":
        masks = top_k(picked, kept_count(sum(sizes), sparsity))
    else:
        if distribution == "erk":
            room = None if caps is None else [jnp.sum(cap, dtype=jnp.int32) for cap in caps]
            counts = erk_counts([leaf.shape for leaf in picked], sparsity, room)
        else:
            each = [sparsity] * len(sizes) if jnp.ndim(sparsity) == 0 else list(jnp.asarray(sparsity))
            counts = [kept_count(size, own) for size, own in zip(sizes, each, strict=True)]
        masks = [top_k([leaf], count)[0] for leaf, count in zip(picked, counts, strict=True)]
    if caps is not None:
        masks = [mask & cap for mask, cap in zip(masks, caps, strict=True)]
    found = iter(masks)
    return jax.tree.unflatten(treedef, [next(found) if yes else jnp.bool_(True) for yes in chosen])


def magnitude_masks(params: Params, sparsity: float | Array, **options) -> PyTree:
    """Masks that keep the weights of largest magnitude: :func:`masks_from_scores` of ``|params|``, with its options and errors.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"a": jnp.array([[-4.0, 1.0]]), "b": jnp.array([[2.0, 3.0]])}
      >>> jax.tree.map(lambda m: m.tolist(), magnitude_masks(params, 0.5, scope="global"))
      {'a': [[True, False]], 'b': [[False, True]]}
    """
    return masks_from_scores(jax.tree.map(jnp.abs, params), sparsity, **options)


def apply_masks(params: Params, masks: PyTree) -> Params:
    """Sets pruned weights to zero, by selection and not by product: a NaN in a pruned weight does not leak.

    Args:
      params: a pytree of arrays.
      masks: of the same structure, see :func:`full_masks`.

    Returns:
      ``params`` with exact zeros where a mask is False.

    Example:
      >>> import jax.numpy as jnp
      >>> apply_masks({"w": jnp.array([1.0, jnp.nan])}, {"w": jnp.array([True, False])})["w"].tolist()
      [1.0, 0.0]
    """
    return jax.tree.map(lambda weight, mask: jnp.where(mask, weight, jnp.zeros_like(weight)), params, masks)


@jax.custom_vjp
def apply_masks_straight_through(params: Params, masks: PyTree) -> Params:
    """:func:`apply_masks` whose pull-back to ``params`` is the identity, so that a pruned weight has a gradient and may return.

    A gradient through the selection is exactly zero for a pruned weight: nothing could ever come back.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> masks = jnp.array([True, False])
      >>> jax.grad(lambda w: apply_masks_straight_through(w, masks).sum())(jnp.ones(2)).tolist()
      [1.0, 1.0]
    """
    return apply_masks(params, masks)


def _straight_through_fwd(params: Params, masks: PyTree):
    return apply_masks(params, masks), None


def _straight_through_bwd(_, gradients):
    return gradients, None


apply_masks_straight_through.defvjp(_straight_through_fwd, _straight_through_bwd)


def count_kept(masks: PyTree) -> Array:
    """How many prunable weights are kept, int32 scalar."""
    return sum((jnp.sum(mask, dtype=jnp.int32) for mask in jax.tree.leaves(masks) if mask.ndim), jnp.int32(0))


def count_prunable(masks: PyTree) -> int:
    """How many weights are prunable, a Python integer (from shapes alone)."""
    return sum(mask.size for mask in jax.tree.leaves(masks) if mask.ndim)


def measured_sparsity(masks: PyTree) -> Array:
    """Zeros / prunable, float32 scalar in [0, 1]; 0 where nothing is prunable.

    Example:
      >>> import jax.numpy as jnp
      >>> float(measured_sparsity({"kernel": jnp.array([[True, False], [False, False]]), "bias": jnp.array(True)}))
      0.75
    """
    prunable = count_prunable(masks)
    return (prunable - count_kept(masks)) / jnp.float32(max(prunable, 1))


def mask_distance(masks: PyTree, others: PyTree) -> Array:
    """The share of prunable entries that one of two mask trees keeps and the other does not; a scalar.

    Both keep k of n: at most 2·min(k, n − k) / n, where they share nothing.

    Args:
      masks, others: of one structure.

    Example:
      >>> import jax.numpy as jnp
      >>> one = {"w": jnp.array([[True, True, False, False]]), "b": jnp.bool_(True)}
      >>> float(mask_distance(one, one | {"w": jnp.array([[True, False, True, False]])}))
      0.5
    """
    changed = jax.tree.map(lambda one, other: jnp.sum(one ^ other), masks, others)
    return sum(jax.tree.leaves(changed), jnp.int32(0)) / jnp.float32(max(count_prunable(masks), 1))


def compression_ratio(masks: PyTree) -> Array:
    """Prunable / kept, float32 scalar, at least 1; infinite where nothing is kept.

    Example:
      >>> import jax.numpy as jnp
      >>> float(compression_ratio({"kernel": jnp.array([[True, False], [False, False]])}))
      4.0
    """
    return jnp.float32(count_prunable(masks)) / count_kept(masks)


def layer_sparsity(masks: PyTree) -> dict[str, Array]:
    """Zeros / size of every prunable leaf, by its path.

    Example:
      >>> import jax.numpy as jnp
      >>> {path: float(s) for path, s in layer_sparsity({"a": {"kernel": jnp.array([[True, False]])}}).items()}
      {'a/kernel': 0.5}
    """
    leaves = zip(leaf_paths(masks), jax.tree.leaves(masks), strict=True)
    return {path: 1.0 - jnp.mean(mask, dtype=jnp.float32) for path, mask in leaves if mask.ndim}
