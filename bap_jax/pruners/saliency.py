"""Adversarial saliency: what the loss under attack grows by, to second order, when a fitted mask damps a weight."""

from __future__ import annotations

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, kernels, prunable_leaves
from bap_jax.mathematics.objectives import cross_entropy
from bap_jax.mathematics.sparsity import kept_count
from bap_jax.mathematics.top_k import top_k
from bap_jax.types import Apply, Array, Network, Params, PyTree

Curvature = Literal["empirical", "fisher"]

MOST = math.log(math.e - 1.0)  # where softplus is 1
LEAST = math.log(math.expm1(1e-4))  # where it is 1e-4
CHUNK = 16  # examples whose gradients are held at once


def adversarial_saliency(
    apply: Apply,
    network: Network,
    images: Array,
    labels: Array,
    weight: Array,
    *,
    num_steps: int = 20,
    rate: float = 0.1,
    curvature: Curvature = "empirical",
    prunable: Prunable = kernels,
) -> Params:
    """The saliency of every prunable weight on one batch of adversarial examples; MAD averages it over many.

    First a soft mask m in [1e-4, 1] is fitted to each weight: Adam minimises the cross-entropy of the network with weights w · m,
    m being the softplus of what is trained, from m = 1. Then, with Δw = w - w · m, the second-order term of the loss between the
    two is shared out among weights: of the row w_i of an output unit i, weight j gets ``½ Δw_ij (F_i Δw_i)_j``, so that a row's
    saliencies sum to ½ Δw_i F_i Δw_i. F_i is the Fisher matrix of that row at w · m,

        F_i = E_x E_y [∇_i log p(y | x) ∇_i log p(y | x)ᵀ],

    computed as it is, from the gradient of each example. K-FAC approximates the same matrix by a product of two factors.

    Args:
      apply: of the model; evaluation mode.
      network: its weights, statistics and masks; what these prune has no part.
      images: [B, ...] adversarial examples.
      labels: [B].
      weight: [B], 0 for padding.
      num_steps: of Adam, at least 0.
      rate: its learning rate.
      curvature: ``"empirical"``, the published one: y is the label; ``"fisher"``: the mean over y as the network predicts it,
        K gradients per example, which for networks that are piecewise linear in a row is the Hessian of that row.
      prunable: which leaves have a saliency; a unit is an entry of a leaf's last axis.

    Returns:
      A pytree like the parameters, float32; zeros where nothing is prunable.

    Raises:
      SettingError: a number or name outside its range, nothing prunable.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.types import Outputs
      >>> apply = lambda params, state, images, *, train: (Outputs(images @ params["w"], {}), state)
      >>> network = Network({"w": jnp.array([[2.0, -1.0], [0.0, 0.0]])}, {"w": jnp.ones((2, 2), bool)}, {})
      >>> found = adversarial_saliency(apply, network, jnp.ones((1, 2)), jnp.array([1]), jnp.ones(1))["w"]
      >>> bool(found[0, 0] > 0), found[1].tolist()  # what is zero cannot be damped
      (True, [0.0, 0.0])

    References:
      Lee, Kim and Ro 2022, "Masking Adversarial Damage: Finding Adversarial Saliency for Robust and Sparse Network"
      (ByungKwanLee/Masking-Adversarial-Damage).
    """
    if num_steps < 0:
        raise SettingError("num_steps", num_steps, "a whole number of at least 0")
    if not 0 < rate < float("inf"):
        raise SettingError("rate", rate, "a positive number")
    if curvature not in get_args(Curvature):
        raise SettingError("curvature", curvature, " or ".join(map(repr, get_args(Curvature))))
    weights, rebuilt = _split(network, prunable)

    def logits_of(weights: list[Array], images: Array) -> Array:
        return apply(rebuilt(weights), network.model_state, images, train=False)[0].logits

    def loss(trained: list[Array]) -> Array:
        losses = cross_entropy(logits_of(_masked(weights, trained), images), labels)
        return jnp.sum(losses * weight) / jnp.maximum(jnp.sum(weight), 1e-12)

    trained = _fitted(loss, [jnp.full_like(leaf, MOST) for leaf in weights], num_steps, rate)
    damped = _masked(weights, trained)
    change = [leaf - low for leaf, low in zip(weights, damped, strict=True)]

    def log_likelihood(weights: list[Array], image: Array) -> Array:
        return jax.nn.log_softmax(logits_of(weights, image[None])[0])

    def of_example(image: Array, label: Array) -> list[Array]:
        predicted, back = jax.vjp(lambda weights: log_likelihood(weights, image), damped)
        if curvature == "empirical":
            return _shares(back(jax.nn.one_hot(label, predicted.size))[0], change)
        each = jax.vmap(lambda label: _shares(back(jax.nn.one_hot(label, predicted.size))[0], change))(jnp.arange(predicted.size))
        return [jnp.tensordot(jnp.exp(predicted), leaf, 1) for leaf in each]

    sums = _sum_over(of_example, images, labels, weight)
    means = iter(leaf / jnp.maximum(jnp.sum(weight), 1e-12) for leaf in sums)
    chosen = prunable_leaves(network.params, prunable)
    leaves, treedef = jax.tree.flatten(network.params)
    return jax.tree.unflatten(
        treedef, [next(means) if yes else jnp.zeros_like(leaf) for yes, leaf in zip(chosen, leaves, strict=True)]
    )


def saliency_masks(
    scores: Params, sparsity: float | Array, *, prunable: Prunable = kernels, within: PyTree | None = None
) -> PyTree:
    """Masks that keep what has the largest saliency: convolutions compete over the network, the inputs of a dense unit with each
    other.

    Args:
      scores: of :func:`adversarial_saliency`.
      sparsity: in [0, 1], of all convolutions together and of every unit of a dense layer.
      prunable: as there.
      within: a mask tree: what it prunes is not kept.

    Returns:
      A mask tree; counts are exact, ties go to the lower index.

    Raises:
      SettingError: nothing prunable, a Python sparsity outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> saliency_masks({"w": jnp.array([[3.0, 0.1], [1.0, 0.2]])}, 0.5)["w"].tolist()
      [[True, False], [False, True]]
    """
    leaves, treedef = jax.tree.flatten(scores)
    chosen = prunable_leaves(scores, prunable)
    caps = [jnp.bool_(True)] * len(leaves) if within is None else jax.tree.leaves(within)
    leaves = [jnp.where(cap, leaf, -jnp.inf) for leaf, cap in zip(leaves, caps, strict=True)]
    convolutions = [leaf for leaf, yes in zip(leaves, chosen, strict=True) if yes and leaf.ndim > 2]
    if convolutions:
        found = iter(top_k(convolutions, kept_count(sum(leaf.size for leaf in convolutions), sparsity)))
    masks = []
    for leaf, cap, yes in zip(leaves, caps, chosen, strict=True):
        if not yes:
            masks.append(jnp.bool_(True))
        elif leaf.ndim > 2:
            masks.append(next(found) & cap)
        else:
            kept = kept_count(leaf.shape[0], sparsity)
            masks.append(jax.vmap(lambda unit, kept=kept: top_k([unit], kept)[0], in_axes=1, out_axes=1)(leaf) & cap)
    return jax.tree.unflatten(treedef, masks)


def _split(network: Network, prunable: Prunable):
    """The prunable leaves, what masks prune being zero, and the parameters with others in their place."""
    leaves, treedef = jax.tree.flatten(network.params)
    masks = jax.tree.leaves(network.masks)
    chosen = prunable_leaves(network.params, prunable)
    weights = [jnp.where(mask, leaf, 0.0) for leaf, mask, yes in zip(leaves, masks, chosen, strict=True) if yes]

    def rebuilt(weights: list[Array]) -> Params:
        given = iter(weights)
        return jax.tree.unflatten(treedef, [next(given) if yes else leaf for yes, leaf in zip(chosen, leaves, strict=True)])

    return weights, rebuilt


def _masked(weights: list[Array], trained: list[Array]) -> list[Array]:
    return [leaf * jax.nn.softplus(own) for leaf, own in zip(weights, trained, strict=True)]


def _fitted(loss, trained: list[Array], num_steps: int, rate: float) -> list[Array]:
    """What Adam comes to, within its bounds after every step."""
    optimizer = optax.adam(rate)

    def step(_, carried):
        trained, state = carried
        updates, state = optimizer.update(jax.grad(loss)(trained), state)
        return [jnp.clip(leaf + change, LEAST, MOST) for leaf, change in zip(trained, updates, strict=True)], state

    return jax.lax.fori_loop(0, num_steps, step, (trained, optimizer.init(trained)))[0]


def _shares(gradient: list[Array], change: list[Array]) -> list[Array]:
    """``½ Δw_ij g_ij (g_i · Δw_i)``, a row being all that leads to one entry of the last axis."""
    pairs = [one * other for one, other in zip(gradient, change, strict=True)]
    return [0.5 * pair * jnp.sum(pair, axis=tuple(range(pair.ndim - 1)), keepdims=True) for pair in pairs]


def _sum_over(of_example, images: Array, labels: Array, weight: Array) -> list[Array]:
    """The weighted sum over examples, of a few at a time."""
    size = images.shape[0]
    padding = -size % CHUNK

    def parts(rows: Array) -> Array:
        padded = jnp.pad(rows, ((0, padding), *((0, 0),) * (rows.ndim - 1)))
        return padded.reshape(-1, CHUNK, *rows.shape[1:])

    def add(total: list[Array], part):
        images, labels, weight = part
        each = jax.vmap(of_example)(images, labels)
        return [sum_ + jnp.tensordot(weight, leaf, 1) for sum_, leaf in zip(total, each, strict=True)], None

    of_one = jax.eval_shape(of_example, images[0], labels[0])
    start = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in of_one]
    return jax.lax.scan(add, start, (parts(images), parts(labels), parts(weight)))[0]
