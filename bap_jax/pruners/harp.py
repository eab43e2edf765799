"""HARP: scores choose which weights a layer keeps, and a trained rate how many."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, kernels, masks_from_scores, prunable_leaves
from bap_jax.mathematics.sparsity import erk_densities
from bap_jax.pruners._given import bound_of, bounded, within
from bap_jax.pruners._scores import batch_norm_leaves, check_sparsity, filled, only, weights_by_score
from bap_jax.pruners.hydra import scaled_scores
from bap_jax.types import Array, Params, Pruner, PyTree

ROUNDED = 5e-5  # what is 0 in four digits


class HARPState(NamedTuple):
    """The frozen weights, and how far the rates are from the density asked for."""

    masks: PyTree
    weights: Params
    gamma: Array  # float32 scalar, the penalty's factor
    excess: Array  # float32 scalar, kept / asked for - 1, at least 0
    density: Array  # float32 scalar, 1 - sparsity
    bound: PyTree  # of masks the network began with, or ()


def harp(
    sparsity: float,
    *,
    frequency: int,
    gamma: float = 0.01,
    initial: Literal["uniform", "erk"] = "uniform",
    prunable: Prunable = kernels,
) -> Pruner:
    """HYDRA's scores, and a rate for every layer: ``k = σ(r) (1 - k_min) + k_min``, k_min a tenth of the density asked for.

    A layer of n weights keeps its ``round(n k)`` largest ``|score|``. The gradient of k is the sum over the layer of that of its
    mask, ``Σ w · ∂L/∂w_effective``, kept and pruned. The loss gains ``γ · max(Σ n k / (density Σ n) - 1, 0)``; γ is 0.01 in the
    first epoch and grows by as much in each. Weights and biases are frozen, BatchNorm is trained. ``settled`` once the network is
    as sparse as was asked for, to four digits. Published: 20 epochs of this (SGD .1, cosine, weight decay 5e-4), then 100 of
    fine-tuning with masks frozen.

    The loss pulls at rates all the while, and γ has to outgrow it: a run of few steps needs a larger one (on the digits, 210
    steps, 0.01 left half of the weights and 0.1 the tenth that was asked for).

    What differs: the original freezes γ once the term is 0; ours pauses its growth while it is 0, so that rates that grow again
    are pushed back. The original begins with a strategy read from a file; ours with the same rate everywhere, or
    Erdős–Rényi's.

    Args:
      sparsity: of the whole network, in [0, 1).
      frequency: steps of an epoch.
      gamma: γ of the first epoch, and its growth, > 0.
      initial: the rates before the first step: ``"uniform"`` or ``"erk"``.
      prunable: ``(path, leaf) -> bool``.

    Returns:
      A :class:`bap_jax.types.Pruner` that trains ``{"scores": ..., "rates": ..., "weights": ...}``, trees of the structure of the
      weights with a scalar 0 where a leaf has no part in them, and whose state is a :class:`HARPState`.

    Raises:
      SettingError: a setting outside its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = harp(0.75, frequency=10)
      >>> trainable, state = pruner.init(jax.random.key(0), {"w": jnp.arange(8.0).reshape(2, 4)})
      >>> pruner.finish(trainable, state)[0]["w"].tolist()
      [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 6.0, 7.0]]

    References:
      Zhao and Wressnegger 2023, "Holistic Adversarially Robust Pruning" (intellisec/harp).
    """
    check_sparsity(sparsity)
    if sparsity == 1:
        raise SettingError("sparsity", sparsity, "a number below 1: a rate is relative to the density asked for")
    if not isinstance(frequency, int) or frequency < 1:
        raise SettingError("frequency", frequency, "an integer of at least 1")
    if not 0 < gamma < float("inf"):
        raise SettingError("gamma", gamma, "a positive number")
    if initial not in ("uniform", "erk"):
        raise SettingError("initial", initial, "'uniform' or 'erk'")

    def smallest(state: HARPState) -> Array:
        return 0.1 * state.density

    def densities(trainable: PyTree, state: HARPState) -> list[Array]:
        """k of every prunable leaf."""
        rates = zip(jax.tree.leaves(trainable["rates"]), prunable_leaves(state.weights, prunable), strict=True)
        low = smallest(state)
        return [jax.nn.sigmoid(rate) * (1 - low) + low for rate, yes in rates if yes]

    def excess_of(trainable: PyTree, state: HARPState) -> Array:
        leaves = zip(jax.tree.leaves(state.weights), prunable_leaves(state.weights, prunable), strict=True)
        sizes = [leaf.size for leaf, yes in leaves if yes]
        shares = [size / sum(sizes) * k for size, k in zip(sizes, densities(trainable, state), strict=True)]
        return jnp.maximum(sum(shares) / state.density - 1.0, 0.0)

    def choose(trainable: PyTree, state: HARPState) -> PyTree:
        chosen = prunable_leaves(state.weights, prunable)
        scores = filled(state.weights, jax.tree.map(jnp.abs, trainable["scores"]), chosen)
        each = 1.0 - jnp.stack(densities(trainable, state))
        return masks_from_scores(scores, each, prunable=prunable, within=within(state.bound))

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[PyTree, HARPState]:
        bound = bound_of(params, masks, prunable)
        params = bounded(params, bound)
        chosen = prunable_leaves(params, prunable)
        leaves, treedef = jax.tree.flatten(params)
        scores = [scaled_scores(leaf) if yes else jnp.float32(0.0) for leaf, yes in zip(leaves, chosen, strict=True)]
        zero = jnp.float32(0.0)
        state = HARPState((), params, jnp.float32(gamma), zero, jnp.float32(1 - sparsity), bound)
        shapes = [leaf.shape for leaf, yes in zip(leaves, chosen, strict=True) if yes]
        begun = erk_densities(shapes, sparsity) if initial == "erk" else jnp.full(len(shapes), state.density)
        relative = jnp.clip((begun - smallest(state)) / (1 - smallest(state)), 1e-4, 1 - 1e-4)
        logits = iter(jnp.log(relative) - jnp.log1p(-relative))
        rates = [next(logits) if yes else zero for yes in chosen]
        trainable = {
            "scores": jax.tree.unflatten(treedef, scores),
            "rates": jax.tree.unflatten(treedef, rates),
            "weights": only(params, batch_norm_leaves(params, prunable)),
        }
        return trainable, state._replace(masks=choose(trainable, state), excess=excess_of(trainable, state))

    def effective(trainable: PyTree, state: HARPState) -> Params:
        masks, chosen = choose(trainable, state), prunable_leaves(state.weights, prunable)
        each = iter(densities(trainable, state))
        leaves = zip(*map(jax.tree.leaves, (state.weights, trainable["scores"], masks)), chosen, strict=True)
        kept = [
            weights_by_score(weight, score, mask) + _weight_of_rate(weight, next(each)) if yes else weight
            for weight, score, mask, yes in leaves
        ]
        weights = jax.tree.unflatten(jax.tree.structure(state.weights), kept)
        return filled(weights, trainable["weights"], batch_norm_leaves(state.weights, prunable))

    def update(key: Array, step: Array, trainable: PyTree, dense_grads: Params, state: HARPState) -> tuple[PyTree, HARPState]:
        excess = excess_of(trainable, state)
        grows = ((step + 1) % frequency == 0) & (excess >= ROUNDED)
        grown = jnp.where(grows, state.gamma + gamma, state.gamma)
        return trainable, state._replace(masks=choose(trainable, state), excess=excess, gamma=grown)

    return Pruner(
        init=init,
        effective=effective,
        penalty=lambda step, trainable, state: state.gamma * excess_of(trainable, state),
        due=lambda step, state: jnp.bool_(True),
        update=update,
        project=lambda trainable, state: trainable,
        finish=lambda trainable, state: (effective(trainable, state), choose(trainable, state)),
        settled=lambda step, state: state.excess < ROUNDED,
    )


@jax.custom_vjp
def _weight_of_rate(weight: Array, density: Array) -> Array:
    """Zeros; the gradient of ``density`` is ``Σ w · g``, as if the whole mask rose with it."""
    return jnp.zeros_like(weight)


def _forward(weight: Array, density: Array):
    return jnp.zeros_like(weight), weight


def _backward(weight: Array, gradient: Array):
    return jnp.zeros_like(weight), jnp.sum(weight * gradient).astype(jnp.float32)


_weight_of_rate.defvjp(_forward, _backward)
