"""Pruning inside anybody's own training loop, as a part of its optimiser."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import leaf_paths
from bap_jax.mathematics.moments import forget
from bap_jax.types import Array, Params, Pruner, PyTree


class WrapState(NamedTuple):
    """The state of an optimiser that prunes."""

    step: Array  # int32 scalar, updates made so far
    optimizer: PyTree  # the state of the optimiser that is wrapped
    prune: PyTree  # that of the pruner; its ``masks`` say what is kept
    key: Array  # never changes, every update folds its number in


def wrap_optax(tx: optax.GradientTransformation, pruner: Pruner, *, key: Array | None = None) -> optax.GradientTransformation:
    """An optimiser that also prunes: after :func:`optax.apply_updates` pruned weights are exactly 0.

    Its update is ``where(mask, u, -p)`` of the parameters ``p`` and the wrapped optimiser's updates ``u``: what is kept has the
    bits that this optimiser alone would give it. Masks change as in :func:`bap_jax.make_train_step`, scored on the stepped
    weights before pruned ones are zero; gradients are not masked, so a pruned weight may return. Nothing may change the updates
    after it: in an :func:`optax.chain` it comes last.

    Args:
      tx: an optax transformation.
      pruner: one whose trainable is the parameters themselves: :func:`dense`, :func:`fixed`, :func:`magnitude`.
      key: for pruners that draw; by default ``jax.random.key(0)``.

    Returns:
      An optax transformation whose state is a :class:`WrapState`. Its ``update`` needs the parameters, and raises SettingError
      without. Where the pruner begins with masks (:func:`fixed`), give parameters that are masked already
      (:func:`bap_jax.apply_masks`), or the first gradient is that of the whole network.

    Raises:
      SettingError: a pruner that takes a second gradient (``ascend``), which no optimiser can; from ``init``, one that trains
        something else than the parameters.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import bap_jax as bap
      >>> tx = wrap_optax(optax.sgd(1.0), bap.pruners.magnitude(bap.Ramp(0.0, 0.5, 0, 1, 1)))
      >>> params = {"w": jnp.array([[3.0, 1.0]])}
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     gradients = jax.grad(lambda params: params["w"].sum())(params)
      ...     updates, state = tx.update(gradients, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> params["w"].tolist(), state.prune.masks["w"].tolist()
      ([[1.0, 0.0]], [[True, False]])
    """
    name = getattr(pruner.init, "__qualname__", repr(pruner.init)).partition(".")[0]
    if pruner.ascend is not None:
        raise SettingError("pruner", name, "one without `ascend`: an optimiser cannot take a second gradient")

    def init(params: Params) -> WrapState:
        own = jax.random.key(0) if key is None else jax.random.clone(key)
        trainable, prune = pruner.init(own, params)
        _check_trains_parameters(name, params, trainable, pruner.finish(trainable, prune)[1])
        return WrapState(jnp.int32(0), tx.init(trainable), prune, own)

    def update(gradients: Params, state: WrapState, params: Params | None = None) -> tuple[Params, WrapState]:
        if params is None:
            raise SettingError("params", None, "the parameters: update(gradients, state, params)")
        step, prune = state.step, state.prune
        penalty = jax.grad(pruner.penalty, argnums=1)(step, params, prune)
        updates, inner = tx.update(jax.tree.map(jnp.add, gradients, penalty), state.optimizer, params)
        stepped = optax.apply_updates(params, updates)

        def changed() -> tuple[Params, PyTree, PyTree]:
            own = jax.random.fold_in(state.key, step)
            new, masks, *anew = pruner.update(own, step, stepped, gradients, prune)
            return new, masks, forget(tx, inner, anew[0]) if pruner.resets else inner

        moved, prune, inner = jax.lax.cond(pruner.due(step, prune), changed, lambda: (stepped, prune, inner))
        projected = pruner.project(moved, prune)
        # what the pruner leaves as it is keeps its update, to the bit; u = -p makes p + u exactly 0
        updates = jax.tree.map(lambda u, p, t, new: jnp.where(new == t, u, new - p), updates, params, stepped, projected)
        return updates, WrapState(optax.safe_increment(step), inner, prune, state.key)

    return optax.GradientTransformation(init, update)


def _check_trains_parameters(name: str, params: Params, trainable: PyTree, masks: PyTree) -> None:
    """Refuses a pruner that trains something else than the parameters; their values are compared where they are known.

    Raises:
      SettingError: naming the pruner.
    """
    same = bool(jax.tree.structure(params) == jax.tree.structure(trainable))  # type: ignore[operator]
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(trainable), strict=True)) if same else []
    same = same and all(jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b) for a, b in pairs)
    if same and not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, trainable, masks))):
        kept = zip(pairs, jax.tree.leaves(masks), strict=True)
        same = all(bool(jnp.all(jnp.where(mask, a == b, True) | (a != a))) for (a, b), mask in kept)
    if not same:
        trained = ", ".join(leaf_paths(trainable)[:3])
        raise SettingError("pruner", name, f"one that trains the parameters themselves; this one trains {trained}, ...")
