"""Flying Bird: sparse from the first step on, its masks moving: the smallest weights leave, others come in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, apply_masks, kernels, prunable_leaves
from bap_jax.mathematics.top_k import top_k
from bap_jax.pruners._given import bound_of, bounded
from bap_jax.pruners._scores import check_sparsity
from bap_jax.types import Array, Params, Pruner, PyTree

Growth = Literal["gradient", "random"]


class FlyingBirdState(NamedTuple):
    """The masks, and which way their density moves at the next change (Flying Bird+)."""

    masks: PyTree
    bound: PyTree  # of masks the network began with, or ()
    drop_more: Array  # bool scalar: drop a further share, so that the network gets sparser
    grow_more: Array  # bool scalar: regrow a little more than was dropped
    history: (
        Array  # float32 [2, 5]: at the last validations, training's minus validation's robust accuracy, and validation's loss
    )
    seen: Array  # int32 scalar: how many validations there were


def flying_bird(
    sparsity: float,
    *,
    num_steps: int,
    frequency: int = 900,
    later_frequency: int = 1200,
    growth: Growth = "gradient",
    drop: float = 0.5,
    final_drop: float = 0.005,
    prunable: Prunable = kernels,
) -> Pruner:
    """Dynamic sparse training: random masks at first, then every ``frequency`` steps each layer exchanges some of its weights.

    A layer of n weights begins with a density of ``1 / (f n + 1)``, f such that the whole has the sparsity asked for. At a change
    each layer drops the ``⌈r · kept⌉`` smallest of its kept weights and grows as many others from zero, so that every layer's
    count stays; r falls from ``drop`` to ``final_drop`` along half a cosine over ``num_steps``. What was just dropped may grow
    again. Pruned weights have no gradient, and the optimiser's moments of all that left or came begin at zero; so there is
    momentum at kept weights only, as with the original, which masks momentum after every step.

    Published: 200 epochs of adversarial training by PGD-10, SGD .1 times .1 at 100 and 150, weight decay 5e-4; the interval of
    1200 in the second half is the ``--dynamic_fre`` of their scripts. What is not known: how their code counts the first
    interval; ours changes at multiples of the interval, not at step 0.

    Args:
      sparsity: of the whole network, in [0, 1].
      num_steps: of the training.
      frequency: steps between changes, in the first half of training.
      later_frequency: the same, in the second half.
      growth: ``"gradient"``: where the gradient of the loss is largest; ``"random"``: anywhere.
      drop: r at first, in [0, 1].
      final_drop: r at the end, in [0, drop].
      prunable: ``(path, leaf) -> bool``.

    Returns:
      A :class:`bap_jax.types.Pruner` with ``resets``, whose state is a :class:`FlyingBirdState`.

    Raises:
      SettingError: a setting outside its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = flying_bird(0.75, num_steps=100, frequency=10)
      >>> weights, state = pruner.init(jax.random.key(0), {"w": jnp.ones((4, 4))})
      >>> int(jnp.sum(weights["w"] != 0)), [step for step in range(30) if pruner.due(step, state)]
      (4, [10, 20])

    References:
      Chen et al. 2022, "Sparsity Winning Twice: Better Robust Generalization from More Efficient Training"
      (VITA-Group/Sparsity-Win-Robust-Generalization); Evci et al. 2020, "Rigging the Lottery" (growth by gradient).
    """
    check_sparsity(sparsity)
    for name, count in (("num_steps", num_steps), ("frequency", frequency), ("later_frequency", later_frequency)):
        if not isinstance(count, int) or count < 1:
            raise SettingError(name, count, "an integer of at least 1")
    if growth not in ("gradient", "random"):
        raise SettingError("growth", growth, "'gradient' or 'random'")
    if not 0 <= drop <= 1:
        raise SettingError("drop", drop, "a number in [0, 1]")
    if not 0 <= final_drop <= drop:
        raise SettingError("final_drop", final_drop, f"a number in [0, drop = {drop}]")

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[Params, FlyingBirdState]:
        bound = bound_of(params, masks, prunable)
        leaves, treedef = jax.tree.flatten(params)
        chosen = prunable_leaves(params, prunable)
        sizes = [leaf.size for leaf, yes in zip(leaves, chosen, strict=True) if yes]
        counts = iter(size_balanced_counts(sizes, sparsity))
        caps = [jnp.bool_(True)] * len(leaves) if bound == () else jax.tree.leaves(bound)
        drawn = [
            _draw(own, leaf, cap, next(counts)) if yes else jnp.bool_(True)
            for own, leaf, cap, yes in zip(jax.random.split(key, len(leaves)), leaves, caps, chosen, strict=True)
        ]
        still = jnp.bool_(False)
        state = FlyingBirdState(jax.tree.unflatten(treedef, drawn), bound, still, still, jnp.zeros((2, 5)), jnp.int32(0))
        return project(params, state), state

    def due(step: Array, state: FlyingBirdState) -> Array:
        every = jnp.where(jnp.asarray(step) < num_steps / 2, frequency, later_frequency)
        return (step > 0) & (step < num_steps) & (step % every == 0)

    def update(key: Array, step: Array, params: Params, dense_grads: Params, state: FlyingBirdState):
        phase = jnp.clip(step / num_steps, 0.0, 1.0)
        rate = final_drop + (drop - final_drop) * 0.5 * (1.0 + jnp.cos(jnp.pi * phase))
        more, factor = jnp.where(state.drop_more, 1.4, 1.0), jnp.where(state.grow_more, 1.05, 1.0)
        masks, treedef = jax.tree.flatten(state.masks)
        caps = [jnp.bool_(True)] * len(masks) if state.bound == () else jax.tree.leaves(state.bound)
        keys = jax.random.split(key, len(masks))

        def changed(mask: Array, weight: Array, gradient: Array, cap: Array, own: Array) -> tuple[Array, Array, Array]:
            """(new mask, weights, which begin anew) of one leaf."""
            if not mask.ndim:
                return mask, weight, jnp.bool_(False)
            score = jnp.abs(gradient) if growth == "gradient" else jax.random.uniform(own, mask.shape)
            survived, new = _exchange(mask, weight, score, cap, rate, more, factor)
            return new, jnp.where(survived, weight, jnp.zeros_like(weight)), ~survived

        leaves = (masks, jax.tree.leaves(params), jax.tree.leaves(dense_grads), caps, keys)
        found, weights, resets = (
            jax.tree.unflatten(treedef, part)
            for part in zip(*(changed(*leaf) for leaf in zip(*leaves, strict=True)), strict=True)
        )
        return weights, state._replace(masks=found, drop_more=jnp.bool_(False), grow_more=jnp.bool_(False)), resets

    def project(params: Params, state: FlyingBirdState) -> Params:
        return apply_masks(bounded(params, state.bound), state.masks)

    return Pruner(
        init=init,
        effective=lambda params, state: apply_masks(params, state.masks),
        penalty=lambda step, params, state: jnp.float32(0.0),
        due=due,
        update=update,
        project=project,
        finish=lambda params, state: (project(params, state), state.masks),
        resets=True,
    )


def _exchange(
    mask: Array, weight: Array, score: Array, cap: Array, rate: Array, more: Array, factor: Array
) -> tuple[Array, Array]:
    """(which of a layer's kept weights survive, its new mask)."""
    kept = jnp.sum(mask, dtype=jnp.int32)
    moved = jnp.minimum(jnp.ceil(rate * kept).astype(jnp.int32), kept)  # dropped, and grown again
    dropped = jnp.minimum(jnp.ceil(more * rate * kept).astype(jnp.int32), kept)
    (survived,) = top_k([jnp.where(mask, jnp.abs(weight), -1.0)], kept - dropped)
    grown = jnp.ceil(factor * moved).astype(jnp.int32)
    room = cap & ~survived
    (came,) = top_k([jnp.where(room, score, -1.0)], jnp.minimum(grown, jnp.sum(room, dtype=jnp.int32)))
    return survived, survived | (came & room)


def _draw(key: Array, leaf: Array, cap: Array, count: int) -> Array:
    """A random mask of that many entries inside a bound, or all of the bound where it has fewer."""
    cap = jnp.broadcast_to(cap, leaf.shape)
    (mask,) = top_k([jnp.where(cap, jax.random.uniform(key, leaf.shape), -1.0)], count)
    return mask & cap


def size_balanced_counts(sizes: list[int], sparsity: float) -> list[int]:
    """How many weights each layer keeps at a density of ``1 / (f n + 1)``, n its size: small layers are denser.

    f is found by bisection; what rounding leaves over goes to the layers with the largest fractional part, so that the counts sum
    to ``round(total · (1 - sparsity))``.

    Args:
      sizes: of the layers.
      sparsity: of the whole, in [0, 1].

    Returns:
      The counts.

    Example:
      >>> size_balanced_counts([10, 1000], 0.9)
      [9, 92]

    References:
      Chen et al. 2022, whose code calls it IGQ.
    """
    total = round(sum(sizes) * (1 - sparsity))
    n = np.array(sizes, np.float64)
    low, high = 0.0, 1.0
    while np.sum(n / (high * n + 1)) > total and high < 1e18:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(n / (middle * n + 1)) > total else (low, middle)
    wanted = n / (low * n + 1) if total < n.sum() else n
    counts = np.floor(wanted + 1e-9).astype(int)
    for layer in np.argsort(-(wanted - counts), kind="stable")[: max(total - int(counts.sum()), 0)]:
        counts[layer] += 1
    return [int(count) for count in counts]


def flying_bird_plus(sparsity: float, *, num_steps: int, begin_validation: int = 100, **options) -> Pruner:
    """:func:`flying_bird` whose density moves: sparser where training overfits, denser where the validation loss rises.

    Of the last four changes between validations (one an epoch, as published): if at least half of those of training's minus
    validation's robust accuracy are rises, the next change of masks drops a further 0.4 of what it drops, and does not grow that
    again; if at least half of those of the validation's adversarial loss are no falls, it grows 5 % more than is dropped
    otherwise. So the sparsity at the end is not the one asked for, but what this makes of it.

    Args:
      sparsity: at first, of the whole network.
      num_steps: of the training.
      begin_validation: how many validations go by before one decides; published: 100 epochs of 200.
      **options: of :func:`flying_bird`.

    Returns:
      A :class:`bap_jax.types.Pruner` with ``observe``, which reads ``adversarial_accuracy`` (of training), ``validation_mean``
      (robust accuracy) and ``validation_loss`` (under attack) from what was measured.

    Raises:
      SettingError: a setting outside its range; on ``observe``, a measure that is not there.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = flying_bird_plus(0.5, num_steps=10, begin_validation=4)
      >>> _, state = pruner.init(jax.random.key(0), {"w": jnp.ones((2, 2))})
      >>> for epoch in range(5):
      ...     measured = {"adversarial_accuracy": 0.1 * epoch, "validation_mean": 0.0, "validation_loss": -1.0 * epoch}
      ...     state = pruner.observe(state, measured)
      >>> bool(state.drop_more), bool(state.grow_more)
      (True, False)

    References:
      Chen et al. 2022 (VITA-Group/Sparsity-Win-Robust-Generalization).
    """
    if not isinstance(begin_validation, int) or begin_validation < 0:
        raise SettingError("begin_validation", begin_validation, "an integer of at least 0")

    def observe(state: FlyingBirdState, measures: Mapping[str, float]) -> FlyingBirdState:
        for name in ("adversarial_accuracy", "validation_mean", "validation_loss"):
            if name not in measures:
                raise SettingError("measures", sorted(measures), f"{name} among them, which Flying Bird+ decides by")
        gap = measures["adversarial_accuracy"] - measures["validation_mean"]
        newest = np.array([[gap], [measures["validation_loss"]]], np.float32)
        history = np.concatenate([np.asarray(state.history)[:, 1:], newest], axis=1)
        seen = int(state.seen) + 1
        decides = seen > begin_validation and seen >= history.shape[1]
        gaps, losses = np.diff(history, axis=1)
        return state._replace(
            history=jnp.asarray(history),
            seen=jnp.int32(seen),
            drop_more=jnp.bool_(decides and np.sum(gaps > 0) >= 2),
            grow_more=jnp.bool_(decides and np.sum(losses >= 0) >= 2),
        )

    return flying_bird(sparsity, num_steps=num_steps, **options)._replace(observe=observe)
