"""Gradual pruning of whole structures as a pruner slot: filters, channels, kernels, blocks, N of M, coupled groups."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bap_jax.mathematics import group_masks
from bap_jax.mathematics.channels import Groups
from bap_jax.mathematics.group_masks import Criterion, Ranking, StructuredScope
from bap_jax.mathematics.schedules import Ramp, Schedule, due, gradual
from bap_jax.pruners.magnitude import CappedState, MagnitudeState, magnitude
from bap_jax.types import Array, Params, Pruner, PyTree


def structured(
    ramp: Ramp,
    groups: Groups,
    *,
    structure: str = "filter",
    scope: StructuredScope = "layer",
    criterion: Criterion = "l1",
    ranking: Ranking = "local",
    block: tuple[int, int] = (4, 4),
    keep_one: bool = True,
    schedule: Schedule = gradual,
    end_steps: tuple[int, ...] = (),
) -> Pruner:
    """Keeps the structures of highest score, at a share of pruned structures that follows a schedule.

    It is :func:`bap_jax.pruners.magnitude` in everything but which masks it takes: the same state, the same times, a gradient
    that is not masked, given masks as an upper bound. The ramp then begins at ``ramp.initial_sparsity`` or at the share of
    structures that the given masks prune as a whole, whichever is larger. With ``criterion="random"`` what is pruned stays
    pruned, and the rest is drawn anew at each update.

    Args:
      ramp: when and how far to prune: shares of the structures, not of the weights.
      groups: of the network, see :func:`bap_jax.structure.groups_of`.
      structure: see :func:`bap_jax.mathematics.group_masks.group_masks`, as for the next five.
      scope: ``"layer"`` or ``"coupled"``.
      criterion: ``"l1"``, ``"l2"``, ``"mean"``, ``"batch_norm"`` or ``"random"``.
      ranking: ``"local"`` or ``"global"``.
      block: height and width of a block.
      keep_one: at least one structure of every layer or family is kept.
      schedule: ``(step, **ramp) -> sparsity``, e.g. those of :mod:`bap_jax.mathematics.schedules`.
      end_steps: further steps at which some copy of the state ends its ramp, for a sweep under ``jax.vmap``.

    Returns:
      A :class:`bap_jax.types.Pruner` whose state is that of :func:`bap_jax.pruners.magnitude`.

    Raises:
      SettingError: a ramp, a name or a combination that makes no sense.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax.mathematics.channels import Groups, Layer
      >>> pruner = structured(Ramp(0.0, 0.5, 0, 4, 2), Groups((), (Layer("kernel", 1, 0),)))
      >>> weights, state = pruner.init(jax.random.key(0), {"kernel": jnp.array([[3.0, 1.0], [2.0, 4.5]])})
      >>> weights, state = pruner.update(jax.random.key(1), jnp.int32(4), weights, None, state)
      >>> pruner.project(weights, state)["kernel"].tolist()
      [[0.0, 1.0], [0.0, 4.5]]

    References:
      See :func:`bap_jax.mathematics.group_masks.group_masks`.
    """
    group_masks.check_structure(structure, scope, criterion, ranking, block)
    prunable = group_masks.covered(groups, structure=structure, scope=scope)
    base = magnitude(ramp, schedule=schedule, prunable=prunable, end_steps=end_steps)
    where: dict[str, Any] = {"structure": structure, "scope": scope, "block": block}
    how: dict[str, Any] = {"criterion": criterion, "ranking": ranking, "keep_one": keep_one}

    def update(
        key: Array, step: Array, params: Params, dense_grads: Params, state: MagnitudeState | CappedState
    ) -> tuple[Params, PyTree]:
        numbers, within = state.ramp, None
        if isinstance(state, CappedState):
            within = state.kept
            pruned = group_masks.structures_pruned(params, within, groups, **where)
            numbers = numbers._replace(initial_sparsity=jnp.maximum(numbers.initial_sparsity, pruned))
        if criterion == "random":
            within = state.masks
        sparsity = schedule(step, **numbers._asdict())
        masks = group_masks.group_masks(params, sparsity, groups, within=within, key=key, **where, **how)
        # under vmap a step may be due for another copy's ramp only
        own = due(step, begin_step=state.ramp.begin_step, end_step=state.ramp.end_step, frequency=state.ramp.frequency)
        masks = jax.tree.map(lambda new, old: jnp.where(own, new, old), masks, state.masks)
        return params, state._replace(masks=masks, sparsity=jnp.where(own, sparsity, state.sparsity))

    return base._replace(update=update)
