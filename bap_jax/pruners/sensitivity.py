"""Structured rates from sensitivity under attack: each layer loses as many filters as leave all layers equally harmful. Ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import leaf_paths
from bap_jax.mathematics.objectives import cross_entropy
from bap_jax.mathematics.structured import structured_masks
from bap_jax.types import Apply, Array, Network, Params, PyTree


def filter_damage(
    apply: Apply, network: Network, images: Array, labels: Array, weight: Array, *, layers: Sequence[str], shares: Sequence[float]
) -> Array:
    """What the loss on adversarial examples grows by when one layer alone loses a share of its filters, those of least norm.

    Args:
      apply: of the model; evaluation mode.
      network: its weights, statistics and masks.
      images: [B, ...] adversarial examples, made once, for the network as it is.
      labels: [B].
      weight: [B], 0 for padding.
      layers: paths of kernels (:func:`bap_jax.mathematics.masks.leaf_paths`), whose last axis are the filters.
      shares: [S], each in [0, 1].

    Returns:
      [L, S] cross-entropy with the layer pruned so far, minus that of the whole network.

    Raises:
      SettingError: no layer, or one that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.types import Outputs
      >>> apply = lambda params, state, images, *, train: (Outputs(images @ params["in"] @ params["out"], {}), state)
      >>> params = {"in": jnp.array([[2.0, 1.0]]), "out": jnp.array([[1.0, 0.0], [0.0, 0.0]])}
      >>> given = apply, Network(params, {"in": jnp.bool_(True), "out": jnp.bool_(True)}, {}), jnp.ones((1, 1)), jnp.array([0])
      >>> found = filter_damage(*given, jnp.ones(1), layers=["in"], shares=[0.5, 1.0])
      >>> [round(float(damage), 2) for damage in found[0]]  # the smaller filter leads nowhere
      [0.0, 0.57]
    """
    paths = leaf_paths(network.params)
    for layer in layers:
        if layer not in paths:
            raise SettingError("layers", layer, f"one of {', '.join(paths)}")
    if not layers:
        raise SettingError("layers", list(layers), "at least one kernel with filters to prune")
    leaves, treedef = jax.tree.flatten(network.params)

    def loss(leaves: list[Array]) -> Array:
        params = jax.tree.unflatten(treedef, leaves)
        losses = cross_entropy(apply(params, network.model_state, images, train=False)[0].logits, labels)
        return jnp.sum(losses * weight) / jnp.maximum(jnp.sum(weight), 1e-12)

    whole = loss(leaves)

    def of_layer(place: int) -> Array:
        def without(share: Array) -> Array:
            mask = _filters(leaves[place], share)
            return loss([*leaves[:place], jnp.where(mask, leaves[place], 0.0), *leaves[place + 1 :]]) - whole

        return jax.lax.map(without, jnp.asarray(shares, jnp.float32))

    return jnp.stack([of_layer(paths.index(layer)) for layer in layers])


def even_rates(damage: np.ndarray, shares: Sequence[float], sizes: Sequence[int], rate: float) -> np.ndarray:
    """The rates of layers at which the most harmed of them is harmed least, for one rate of all filters together.

    Damage is made to rise with the share (running maximum, from 0 at a share of 0) and is linear between shares. Every layer
    takes the largest share that does it at most a damage t, and t is the least at which that is enough; where even t = 0 is more
    than enough, layers take the same part of what they could. Shares beyond the largest one are not taken.

    Args:
      damage: [L, S], as of :func:`filter_damage`.
      shares: [S], rising, in (0, 1].
      sizes: [L] filters of each layer.
      rate: of all filters, in [0, 1].

    Returns:
      [L] float64 rates; those of the filters of all layers average to ``rate``.

    Raises:
      SettingError: a rate above the largest share, or shares that do not rise.

    Example:
      >>> even_rates(np.array([[1.0, 2.0], [4.0, 8.0]]), [0.4, 0.8], [10, 10], 0.25).round(3).tolist()
      [0.4, 0.1]
    """
    at = np.concatenate([[0.0], np.asarray(shares, np.float64)])
    if at[-1] > 1 or (np.diff(at) <= 0).any():
        raise SettingError("shares", list(shares), "numbers in (0, 1] that rise")
    if not 0 <= rate <= at[-1]:
        raise SettingError("rate", rate, f"a number from 0 to {at[-1]:g}, the largest share that was looked at")
    rising = np.maximum.accumulate(np.concatenate([np.zeros((len(sizes), 1)), np.asarray(damage, np.float64)], 1), axis=1)
    filters = np.asarray(sizes, np.float64)
    wanted = rate * filters.sum()

    def up_to(most: float) -> np.ndarray:
        return np.array([_largest(one, at, most) for one in rising])

    low, high = 0.0, float(rising.max())
    free = up_to(low)
    if free @ filters >= wanted:
        return free * (wanted / max(free @ filters, 1e-300))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if up_to(middle) @ filters < wanted else (low, middle)
    below, above = up_to(low), up_to(high)
    more = (above - below) @ filters  # where a layer's damage stands still between shares, t alone is too coarse
    return below + (above - below) * ((wanted - below @ filters) / more if more > 0 else 0.0)


def filter_masks(params: Params, rates: Mapping[str, float], *, within: PyTree | None = None) -> PyTree:
    """Masks that keep the filters of largest norm of some layers, at least one of each.

    Args:
      params: the weights.
      rates: path of a kernel -> the share of its filters that is pruned.
      within: a mask tree: what it prunes is not kept.

    Returns:
      A mask tree; of what ``rates`` do not name, what ``within`` keeps.

    Example:
      >>> import jax.numpy as jnp
      >>> masks = filter_masks({"in": jnp.array([[2.0, 1.0, 3.0]]), "out": jnp.ones((3, 1))}, {"in": 0.4})
      >>> masks["in"].tolist(), masks["out"].tolist()
      ([[True, False, True]], True)
    """
    leaves, treedef = jax.tree.flatten(params)
    caps = [jnp.bool_(True)] * len(leaves) if within is None else jax.tree.leaves(within)
    masks = []
    for path, leaf, cap in zip(leaf_paths(params), leaves, caps, strict=True):
        if path not in rates:
            masks.append(jnp.asarray(cap))
            continue
        filters = leaf.shape[-1]
        masks.append(_filters(jnp.where(cap, leaf, 0.0), min(rates[path], (filters - 1) / filters)) & cap)
    return jax.tree.unflatten(treedef, masks)


def _filters(kernel: Array, share: float | Array) -> Array:
    return structured_masks([kernel], share, structure="filter", prunable=lambda path, leaf: True)[0]


def _largest(damage: np.ndarray, shares: np.ndarray, most: float) -> float:
    """The largest share of which the damage, rising and linear between shares, is at most so much."""
    last = int(np.searchsorted(damage, most, side="right")) - 1
    if last == len(shares) - 1:
        return float(shares[-1])
    part = (most - damage[last]) / (damage[last + 1] - damage[last])
    return float(shares[last] + part * (shares[last + 1] - shares[last]))
