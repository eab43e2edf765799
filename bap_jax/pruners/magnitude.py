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


class CappedState(NamedTuple):
    """As :class:`MagnitudeState`, of a network that began with masks: ``kept``, beyond which no later mask keeps a weight.

    A type of its own, so that the step of a network that began without any has nothing of it.
    """

    masks: PyTree
    ramp: Ramp
    end_steps: Array  # [num_ends] int32
    sparsity: Array  # float32 scalar
    kept: PyTree


State = MagnitudeState | CappedState


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

    ``init(key, params, masks)`` begins with given masks, which are an upper bound: no later mask keeps a weight that they prune.
    A layer's ramp then begins at ``ramp.initial_sparsity`` or at the sparsity of its given mask, whichever is larger, and no
    layer gets denser than it began; a whole network's does where weights compete over the whole network, or by ERK.

    Args:
      ramp: when and how far to prune.
      schedule: ``(step, **ramp) -> sparsity``, e.g. those of :mod:`bap_jax.mathematics.schedules`.
      scope, distribution, prunable: see :func:`bap_jax.mathematics.masks.masks_from_scores`.
      end_steps: further steps at which some copy of the state ends its ramp, for a sweep under ``jax.vmap``.

    Returns:
      A :class:`bap_jax.types.Pruner` whose state is a :class:`MagnitudeState`, or with given masks a :class:`CappedState`.

    Raises:
      SettingError: a ramp, scope or distribution that makes no sense.

    Example:
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

    per_layer = scope == "layer" and distribution == "uniform"

    def sparsity_at(step: Array, ramp: Ramp) -> Array:
        return schedule(step, **ramp._asdict())

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[Params, State]:
        numbers = Ramp(
            jnp.float32(ramp.initial_sparsity),
            jnp.float32(ramp.final_sparsity),
            jnp.int32(ramp.begin_step),
            jnp.int32(ramp.end_step),
            jnp.int32(ramp.frequency),
        )
        ends = jnp.array([ramp.end_step, *end_steps], jnp.int32)
        if masks is None:
            return params, MagnitudeState(mask_functions.full_masks(params, prunable), numbers, ends, jnp.float32(0.0))
        kept = mask_functions.masks_like(params, masks, prunable)
        state = CappedState(kept, numbers, ends, mask_functions.measured_sparsity(kept), kept)
        return project(params, state), state

    def effective(params: Params, state: State) -> Params:
        return mask_functions.apply_masks_straight_through(params, state.masks)

    def is_due(step: Array, state: State) -> Array:
        begin, every = state.ramp.begin_step, state.ramp.frequency
        periodic = (step >= begin) & (step <= jnp.max(state.end_steps)) & ((step - begin) % every == 0)
        return periodic | jnp.any(step == state.end_steps)

    def chosen(step: Array, params: Params, state: State) -> tuple[PyTree, Array]:
        """The masks of a step, and the sparsity that it asks for."""
        options = {"scope": scope, "distribution": distribution, "prunable": prunable}
        if isinstance(state, MagnitudeState):
            sparsity = sparsity_at(step, state.ramp)
            return mask_functions.magnitude_masks(params, sparsity, **options), sparsity
        begin = state.ramp.initial_sparsity

        def from_measured(measured: Array) -> Array:
            return sparsity_at(step, state.ramp._replace(initial_sparsity=jnp.maximum(begin, measured)))

        sparsity = from_measured(mask_functions.measured_sparsity(state.kept))
        layers = jnp.stack(list(mask_functions.layer_sparsity(state.kept).values()))
        asked = jax.vmap(from_measured)(layers) if per_layer else sparsity
        return mask_functions.magnitude_masks(params, asked, within=state.kept, **options), sparsity

    def update(key: Array, step: Array, params: Params, dense_grads: Params, state: State) -> tuple[Params, State]:
        masks, sparsity = chosen(step, params, state)
        # under vmap a step may be due for another copy's ramp only
        own = due(step, begin_step=state.ramp.begin_step, end_step=state.ramp.end_step, frequency=state.ramp.frequency)
        masks = jax.tree.map(lambda new, old: jnp.where(own, new, old), masks, state.masks)
        return params, state._replace(masks=masks, sparsity=jnp.where(own, sparsity, state.sparsity))

    def project(params: Params, state: State) -> Params:
        return mask_functions.apply_masks(params, state.masks)

    def finish(params: Params, state: State) -> tuple[Params, PyTree]:
        return project(params, state), state.masks

    def settled(step: Array, state: State) -> Array:
        return step > state.ramp.end_step

    return Pruner(init, effective, _no_penalty, is_due, update, project, finish, settled=settled, axes=_axes)


def _axes(state: State) -> State:
    """What ``due`` reads is common to all copies."""
    per_copy = Ramp(initial_sparsity=0, final_sparsity=0, begin_step=None, end_step=0, frequency=None)  # type: ignore[arg-type]
    return jax.tree.map(lambda _: 0, state)._replace(ramp=per_copy, end_steps=None)


def _no_penalty(step: Array, params: Params, state: State) -> Array:
    return jnp.float32(0.0)
