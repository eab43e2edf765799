"""Masks that are chosen once, from the weights that a phase begins with: prune, then train what is left."""

from __future__ import annotations

from typing import Any

from bap_jax.errors import SettingError
from bap_jax.mathematics import group_masks
from bap_jax.mathematics.channels import Groups
from bap_jax.mathematics.group_masks import Criterion, Ranking, StructuredScope
from bap_jax.mathematics.masks import masks_like
from bap_jax.pruners.fixed import FixedState, fixed
from bap_jax.types import Array, Params, Pruner, PyTree

WEIGHT = "weight"


def at_start(
    sparsity: float,
    groups: Groups,
    *,
    structure: str = WEIGHT,
    scope: StructuredScope = "layer",
    criterion: Criterion = "l1",
    ranking: Ranking = "local",
    block: tuple[int, int] = (4, 4),
    keep_one: bool = True,
) -> Pruner:
    """Keeps the weights or structures of highest score among those that training begins with; later the masks never change.

    The share is of all, those that given masks prune included: a chain of phases or runs with rising sparsities prunes
    iteratively, each from what the one before it left.

    Args:
      sparsity: the share of the structures that is pruned, in [0, 1].
      groups: of the network, see :func:`bap_jax.structure.groups_of`.
      structure: ``"weight"`` for single weights; else see :func:`bap_jax.mathematics.group_masks.group_masks`, as for the rest.
      scope: ``"layer"`` or ``"coupled"``.
      criterion: ``"l1"``, ``"l2"``, ``"mean"``, ``"batch_norm"`` or ``"random"``.
      ranking: ``"local"`` or ``"global"``.
      block: height and width of a block.
      keep_one: at least one structure of every layer or family is kept.

    Returns:
      A :class:`bap_jax.types.Pruner` whose state is a :class:`bap_jax.pruners.fixed.FixedState`.

    Raises:
      SettingError: a sparsity, a name or a combination that makes no sense.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax.mathematics.channels import Groups, Layer
      >>> pruner = at_start(0.5, Groups((), (Layer("kernel", 1, 0),)))
      >>> pruner.init(jax.random.key(0), {"kernel": jnp.array([[3.0, 1.0], [2.0, 4.0]])})[0]["kernel"].tolist()
      [[3.0, 0.0], [0.0, 4.0]]

    References:
      Merkle, Samsinger and Schöttle 2022, "Pruning in the Face of Adversaries".
    """
    if not 0 <= sparsity <= 1:
        raise SettingError("sparsity", sparsity, "a number in [0, 1]")
    how: dict[str, Any] = {"criterion": criterion, "ranking": ranking, "keep_one": keep_one}
    where: dict[str, Any] = {"structure": structure, "scope": scope, "block": block}
    if structure == WEIGHT:
        if scope == "coupled":
            raise SettingError("structure", structure, "'filter' with scope = 'coupled', which prunes whole groups of channels")
        where |= {"structure": "block", "block": (1, 1)}
    group_masks.check_structure(where["structure"], scope, criterion, ranking, where["block"])
    prunable = group_masks.covered(groups, structure=where["structure"], scope=scope)
    base = fixed(prunable=prunable)

    def init(key: Array, params: Params, masks: PyTree | None = None) -> tuple[Params, FixedState]:
        within = None if masks is None else masks_like(params, masks, prunable)
        chosen = group_masks.group_masks(params, sparsity, groups, within=within, key=key, **where, **how)
        return base.init(key, params, chosen)

    return base._replace(init=init)
