"""Robust Bird: masks are drawn early in robust training, as soon as they have stopped moving."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import Prunable, apply_masks, convolutions, magnitude_masks
from bap_jax.pruners._given import bound_of, bounded, within
from bap_jax.pruners._scores import check_sparsity
from bap_jax.types import Array, Params, Pruner, PyTree

OLDER = 4  # masks that the newest is compared with


class RobustBirdState(NamedTuple):
    """The masks of the last epochs."""

    masks: PyTree  # the newest, or those drawn
    older: PyTree  # of each leaf [4, ...], the newest of them last
    seen: Array  # int32 scalar: epochs so far
    distance: Array  # float32 scalar: the largest share of entries in which the newest differs from an older one
    drawn: Array  # bool scalar: they have stopped moving
    sparsity: Array  # float32 scalar
    bound: PyTree  # of masks the network began with, or ()


def robust_bird(sparsity: float, *, frequency: int, tolerance: float = 0.08, prunable: Prunable = convolutions) -> Pruner:
    """Trains the dense network; after each epoch looks which weights are largest in the whole of it, until that stands still.

    The mask of an epoch is compared with those of the four before: when it differs from each of them in at most ``tolerance`` of
    its entries, it is drawn, and the phase is over: give :func:`drawn` as the phase's ``until``. Masks do not move after that.
    ``finish`` cuts. What follows is another phase: a new optimiser and schedule (SGD .1, times .1 at epochs 50 and 150), from the
    weights of the draw. Published: at most 200 epochs of robust training by PGD, FGSM or on clean images. Left out: the form that
    draws channels by BatchNorm's scales, whose tolerance is 10 %.

    Args:
      sparsity: of all prunable weights together, in [0, 1].
      frequency: steps of an epoch.
      tolerance: in [0, 1].
      prunable: ``(path, leaf) -> bool``; published: convolutions only.

    Returns:
      A :class:`bap_jax.types.Pruner` whose state is a :class:`RobustBirdState`.

    Raises:
      SettingError: a setting outside its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> pruner = robust_bird(0.5, frequency=10, prunable=lambda path, leaf: True)
      >>> weights, state = pruner.init(jax.random.key(0), {"w": jnp.array([[1.0, 2.0]])})
      >>> update = jax.jit(pruner.update)
      >>> seen = []
      >>> for epoch in range(5):
      ...     weights, state = update(jax.random.key(1), jnp.int32(9 + 10 * epoch), weights, None, state)
      ...     seen.append(drawn(state))
      >>> seen
      [False, False, False, False, True]

    References:
      Chen et al. 2022, "Sparsity Winning Twice: Better Robust Generalization from More Efficient Training"
      (VITA-Group/Sparsity-Win-Robust-Generalization); You et al. 2020, "Drawing Early-Bird Tickets".
    """
    check_sparsity(sparsity)
    if not isinstance(frequency, int) or frequency < 1:
        raise SettingError("frequency", frequency, "an integer of at least 1")
    if not 0 <= tolerance <= 1:
        raise SettingError("tolerance", tolerance, "a number in [0, 1]")

    def look(params: Params, state: RobustBirdState) -> PyTree:
        return magnitude_masks(params, state.sparsity, scope="global", prunable=prunable, within=within(state.bound))

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[Params, RobustBirdState]:
        bound = bound_of(params, masks, prunable)
        params = bounded(params, bound)
        state = RobustBirdState((), (), jnp.int32(0), jnp.float32(1.0), jnp.bool_(False), jnp.float32(sparsity), bound)
        masks = look(params, state)
        older = jax.tree.map(lambda mask: jnp.broadcast_to(mask, (OLDER, *mask.shape)), masks)
        return params, state._replace(masks=masks, older=older)

    def update(key: Array, step: Array, params: Params, dense_grads: Params, state: RobustBirdState):
        new = look(params, state)
        pairs = [
            (mask, older) for mask, older in zip(jax.tree.leaves(new), jax.tree.leaves(state.older), strict=True) if mask.ndim
        ]
        differing = sum(jnp.sum(mask[None] != older, axis=tuple(range(1, older.ndim)), dtype=jnp.int32) for mask, older in pairs)
        distance = jnp.max(jnp.asarray(differing)) / sum(mask.size for mask, _ in pairs)
        stands = (state.seen >= OLDER) & (distance <= tolerance)
        moved = state._replace(
            masks=new,
            older=jax.tree.map(lambda older, mask: jnp.concatenate([older[1:], mask[None]]), state.older, new),
            seen=state.seen + 1,
            distance=distance,
            drawn=stands,
        )
        return params, jax.tree.map(lambda now, then: jnp.where(state.drawn, then, now), moved, state)

    return Pruner(
        init=init,
        effective=lambda params, state: params,
        penalty=lambda step, params, state: jnp.float32(0.0),
        due=lambda step, state: (step + 1) % frequency == 0,
        update=update,
        project=lambda params, state: bounded(params, state.bound),
        finish=lambda params, state: (apply_masks(params, state.masks), state.masks),
    )


def drawn(state: RobustBirdState) -> bool:
    """Whether the masks have stopped moving: when the phase ends."""
    return bool(state.drawn)
