"""One prescribed epsilon for all examples: adversarial pruning as it is usually done."""

from __future__ import annotations

import inspect
from typing import NamedTuple, Protocol, cast, get_args

import jax.numpy as jnp

from bap_jax.budgets.none import targets_of
from bap_jax.errors import SettingError
from bap_jax.inputs import require_radius
from bap_jax.types import Adversarial, Array, AttackResult, Batch, Bounds, Budget, Gather, LogitsFn, Norm


class BudgetAttack(Protocol):
    """An attack with everything fixed but epsilon, scalar or [B]: e.g. ``functools.partial(pgd, norm="linf", num_steps=7)``."""

    def __call__(self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, *, epsilon: Array) -> AttackResult: ...


class UniformState(NamedTuple):
    """The prescribed budget; a leaf, so that a sweep may batch it."""

    epsilon: Array  # float32 scalar


def require_radii(attack: BudgetAttack, **radii: float) -> None:
    """Refuses radii wider than the box of an attack, as far as its signature tells its norm and its box.

    Raises:
      SettingError: naming the radius.

    Example:
      >>> from functools import partial
      >>> from bap_jax.attacks import pgd
      >>> require_radii(partial(pgd, num_steps=7), epsilon=8)
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: epsilon = 8: expected at most 1, the linf size of the box [0, 1]; 8/255?
    """
    parameters = inspect.signature(attack).parameters
    norm, bounds = (parameters[name].default if name in parameters else None for name in ("norm", "bounds"))
    if norm in get_args(Norm) and isinstance(bounds, tuple):
        for name, value in radii.items():
            require_radius(value, cast(Norm, norm), Bounds(*bounds), name=name)


def uniform(attack: BudgetAttack, epsilon: float) -> Budget:
    """The same ``epsilon`` for every example.

    Args:
      attack: see :class:`BudgetAttack`.
      epsilon: radius in input units, at least 0.

    Returns:
      A :class:`bap_jax.types.Budget` whose state is a :class:`UniformState`.

    Raises:
      SettingError: a negative or non-finite epsilon, or one wider than the box.

    Example:
      >>> from functools import partial
      >>> from bap_jax.attacks import pgd
      >>> float(uniform(partial(pgd, num_steps=7), 0.5).init(None).epsilon)
      0.5
    """
    if not 0 <= epsilon < float("inf"):
        raise SettingError("epsilon", epsilon, "a finite number of at least 0")
    require_radii(attack, epsilon=epsilon)

    def perturb(keys: Array, logits_fn: LogitsFn, batch: Batch, state: UniformState, *, step: Array, gather: Gather):
        images = attack(logits_fn, keys, batch.images, batch.labels, epsilon=state.epsilon).images
        budgets = jnp.broadcast_to(state.epsilon, batch.labels.shape)
        return Adversarial(images, budgets, targets_of(logits_fn, batch.images, batch.labels), batch.weight), state

    return Budget(init=lambda info: UniformState(jnp.float32(epsilon)), perturb=perturb)
