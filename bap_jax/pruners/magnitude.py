"""Gradual magnitude pruning as a pruner slot."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.mathematics import masks as mask_functions
from bap_jax.mathematics.masks import Distribution, Prunable, Scope
from bap_jax.mathematics.schedules import Ramp, Schedule, check_ramp, due, gradual
from bap_jax.types import Array, Params, Pruner, PyTree


class MagnitudeState(NamedTuple):
    """The masks, the ramp they follow and the sparsity last asked for.

    The ramp's sparsities and ``ramp.end_step`` may differ between copies of a state under ``jax.vmap``; ``ramp.begin_step``,
    ``ramp.frequency`` and ``end_steps``, every end among the copies, are common to all, so that :func:`Pruner.due` stays
    unbatched.
    """

    masks: PyTree
    ramp: Ramp
    end_steps: Array  # [num_ends] int32
    sparsity: Array  # float32 scalar


def magnitude(
    ramp: Ramp,
    *,
    schedule: Schedule = gradual,
    scope: Scope = "layer",
    distribution: Distribution = "uniform",
    prunable: Prunable = mask_functions.kernels,
    end_steps: tuple[int, ...] = (),
) -> Pruner:
    """Keeps the weights of largest magnitude, at a sparsity that follows a schedule.

    The masks change at the steps that :func:`bap_jax.mathematics.schedules.due` names. They are scored on the weights as the
    optimiser's step left them, before pruned weights are set to zero again, and the gradient is not masked: so a pruned weight
    may return at a mask update.

    Args:
      ramp: when and how far to prune.
      schedule: ``(step, **ramp) -> sparsity``, e.g. those of :mod:`bap_jax.mathematics.schedules`.
      scope, distribution, prunable: see :func:`bap_jax.mathematics.masks.masks_from_scores`.
      end_steps: further steps at which some copy of the state ends its ramp, for a sweep under ``jax.vmap``.

    Returns:
      A :class:`bap_jax.types.Pruner` whose state is a :class:`MagnitudeState`.

    Raises:
      SettingError: a ramp, scope or distribution that makes no sense.

    >>> import jax, jax.numpy as jnp
    >>> pruner = magnitude(Ramp(0.0, 0.5, 0, 4, 2))
    >>> weights, state = pruner.init(jax.random.key(0), {"kernel": jnp.array([[3.0, 1.0], [2.0, 4.0]])})
    >>> weights, state = pruner.update(jax.random.key(1), jnp.int32(4), weights, None, state)
    >>> pruner.project(weights, state)["kernel"].tolist()
    [[3.0, 0.0], [0.0, 4.0]]

    References:
      Zhu and Gupta, To prune, or not to prune, 2017; Xie et al., Blind adversarial pruning, 2020, arXiv 2004.05913.
    """
    check_ramp(ramp)
    if scope not in ("layer", "global"):
        raise SettingError("scope", scope, "'layer' or 'global'")

    def sparsity_at(step: Array, state: MagnitudeState) -> Array:
        return schedule(step, **state.ramp._asdict())

    def init(key: Array, params: Params) -> tuple[Params, MagnitudeState]:
        numbers = Ramp(
            jnp.float32(ramp.initial_sparsity),
            jnp.float32(ramp.final_sparsity),
            jnp.int32(ramp.begin_step),
            jnp.int32(ramp.end_step),
            jnp.int32(ramp.frequency),
        )
        ends = jnp.array([ramp.end_step, *end_steps], jnp.int32)
        return params, MagnitudeState(mask_functions.full_masks(params, prunable), numbers, ends, jnp.float32(0.0))

    def effective(params: Params, state: MagnitudeState) -> Params:
        return mask_functions.apply_masks_straight_through(params, state.masks)

    def is_due(step: Array, state: MagnitudeState) -> Array:
        begin, every = state.ramp.begin_step, state.ramp.frequency
        periodic = (step >= begin) & (step <= jnp.max(state.end_steps)) & ((step - begin) % every == 0)
        return periodic | jnp.any(step == state.end_steps)

    def update(
        key: Array, step: Array, params: Params, dense_grads: Params, state: MagnitudeState
    ) -> tuple[Params, MagnitudeState]:
        sparsity = sparsity_at(step, state)
        masks = mask_functions.magnitude_masks(params, sparsity, scope=scope, distribution=distribution, prunable=prunable)
        # under vmap a step may be due for another copy's ramp only
        own = due(step, begin_step=state.ramp.begin_step, end_step=state.ramp.end_step, frequency=state.ramp.frequency)
        masks = jax.tree.map(lambda new, old: jnp.where(own, new, old), masks, state.masks)
        return params, state._replace(masks=masks, sparsity=jnp.where(own, sparsity, state.sparsity))

    def project(params: Params, state: MagnitudeState) -> Params:
        return mask_functions.apply_masks(params, state.masks)

    def finish(params: Params, state: MagnitudeState) -> tuple[Params, PyTree]:
        return project(params, state), state.masks

    return Pruner(init, effective, _no_penalty, is_due, update, project, finish)


def _no_penalty(step: Array, params: Params, state: MagnitudeState) -> Array:
    return jnp.float32(0.0)
