"""The search for masks by trained scores over frozen weights, from which HYDRA's and edge-popup's pruners are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.group_masks import Structures, check_structure, covered, group_masks
from bap_jax.mathematics.masks import Prunable, Scope, kernels, masks_from_scores, prunable_leaves
from bap_jax.pruners._given import bound_of, bounded, within
from bap_jax.pruners._scores import batch_norm_leaves, check_sparsity, filled, only, weights_by_score
from bap_jax.types import Array, Params, Pruner, PyTree


class ScoreState(NamedTuple):
    """The frozen weights and the masks that the scores, as the last step left them, choose."""

    masks: PyTree
    weights: Params
    sparsity: Array  # float32 scalar
    bound: PyTree  # of masks the network began with, or ()


def score_search(
    sparsity: float,
    begin: Callable[[Array, Array], tuple[Array, Array]],
    *,
    train_batch_norm: bool,
    scope: Scope = "layer",
    prunable: Prunable = kernels,
    structures: Structures | None = None,
) -> Pruner:
    """Trains a score for every weight and keeps the weights of largest ``|score|``; the weights themselves stay as they are.

    The gradient of a score is that of its place in the mask, straight through the choice: ``w · ∂L/∂w_effective · sgn(s)``, for
    pruned weights too, so that any may return at any step.

    Args:
      sparsity: in [0, 1], from the first step on.
      begin: ``(key, kernel) -> (weights, scores)`` of each prunable leaf.
      train_batch_norm: whether BatchNorm's scale and shift are trained beside the scores. Biases never are.
      scope: ``"layer"``: each layer at this sparsity; ``"global"``: all scores compete.
      prunable: ``(path, leaf) -> bool``.
      structures: keep whole ones, those of the largest ``Σ|score|`` (with ``scope="global"`` of the largest mean); the sparsity
        is a share of them, every layer or family keeps one, and biases and BatchNorm go with their filters. Scored are the
        kernels that they cover.

    Returns:
      A :class:`bap_jax.types.Pruner` that trains ``{"scores": ..., "weights": ...}``, trees of the structure of the weights with
      a scalar 0 where a leaf has no part in them, and whose state is a :class:`ScoreState`; ``sparsity`` may differ between
      copies under ``jax.vmap``.

    Raises:
      SettingError: a sparsity outside [0, 1], an unknown scope.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = score_search(0.5, lambda key, kernel: (kernel, kernel**2), train_batch_norm=False)
      >>> trainable, state = pruner.init(jax.random.key(0), {"w": jnp.array([[1.0, -2.0]])})
      >>> trainable["scores"]["w"].tolist(), pruner.effective(trainable, state)["w"].tolist()
      ([[1.0, 4.0]], [[0.0, -2.0]])
    """
    check_sparsity(sparsity)
    if scope not in ("layer", "global"):
        raise SettingError("scope", scope, "'layer' or 'global'")
    masked = prunable
    if structures is not None:
        told = structures._asdict()
        ranked: dict[str, Any] = {"criterion": "mean", "ranking": "global"} if scope == "global" else {}
        check_structure(structures.structure, structures.scope, "l1", ranked.get("ranking", "local"), structures.block)
        masked = covered(structures.groups, structure=structures.structure, scope=structures.scope)
        prunable = lambda path, leaf: leaf.ndim > 1 and masked(path, leaf)  # noqa: E731

    def choose(trainable: PyTree, state: ScoreState) -> PyTree:
        chosen = prunable_leaves(state.weights, prunable)
        scores = filled(state.weights, jax.tree.map(jnp.abs, trainable["scores"]), chosen)
        if structures is not None:
            return group_masks(scores, state.sparsity, within=within(state.bound), **told, **ranked)
        return masks_from_scores(scores, state.sparsity, scope=scope, prunable=prunable, within=within(state.bound))

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[PyTree, ScoreState]:
        bound = bound_of(params, masks, masked)
        params = bounded(params, bound)
        chosen = prunable_leaves(params, prunable)
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        begun = [begin(keys[i], leaf) if chosen[i] else (leaf, jnp.float32(0.0)) for i, leaf in enumerate(leaves)]
        weights = bounded(jax.tree.unflatten(treedef, [weight for weight, _ in begun]), bound)
        free = only(params, batch_norm_leaves(params, prunable) if train_batch_norm else [False] * len(leaves))
        trainable = {"scores": jax.tree.unflatten(treedef, [score for _, score in begun]), "weights": free}
        state = ScoreState((), weights, jnp.float32(sparsity), bound)
        return trainable, state._replace(masks=choose(trainable, state))

    def effective(trainable: PyTree, state: ScoreState) -> Params:
        masks = choose(trainable, state)
        chosen = prunable_leaves(state.weights, prunable)
        kept = [
            weights_by_score(weight, score, mask) if yes else weight
            for weight, score, mask, yes in zip(
                *map(jax.tree.leaves, (state.weights, trainable["scores"], masks)), chosen, strict=True
            )
        ]
        weights = jax.tree.unflatten(jax.tree.structure(state.weights), kept)
        if train_batch_norm:
            weights = filled(weights, trainable["weights"], batch_norm_leaves(state.weights, prunable))
        return weights if structures is None else _with_what_goes_along(weights, masks, chosen)

    def update(key: Array, step: Array, trainable: PyTree, dense_grads: Params, state: ScoreState) -> tuple[PyTree, ScoreState]:
        return trainable, state._replace(masks=choose(trainable, state))

    return Pruner(
        init=init,
        effective=effective,
        penalty=lambda step, trainable, state: jnp.float32(0.0),
        due=lambda step, state: jnp.bool_(True),
        update=update,
        project=lambda trainable, state: trainable,
        finish=lambda trainable, state: (effective(trainable, state), choose(trainable, state)),
    )


def _with_what_goes_along(weights: Params, masks: PyTree, scored: list[bool]) -> Params:
    """The weights, biases and BatchNorm of what is pruned being zero, too."""
    leaves = zip(jax.tree.leaves(weights), jax.tree.leaves(masks), scored, strict=True)
    kept = [leaf if yes else jnp.where(mask, leaf, jnp.zeros_like(leaf)) for leaf, mask, yes in leaves]
    return jax.tree.unflatten(jax.tree.structure(weights), kept)
