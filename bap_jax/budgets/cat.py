"""Customized adversarial training: budgets that grow where the network holds, with labels softened as they grow."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import AnyRadius
from bap_jax.budgets._per_example import read_table, write_table
from bap_jax.budgets._staged import staged
from bap_jax.budgets.none import targets_of
from bap_jax.budgets.uniform import BudgetAttack, require_radii
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import misclassified
from bap_jax.types import Adversarial, Array, Batch, Budget, Gather, LogitsFn, RunInfo


class CATState(NamedTuple):
    """The budgets so far; what they follow are leaves, so that a sweep may batch it."""

    epsilons: Array  # [num_examples] float32
    epsilon_step: Array  # float32 scalar, eta
    epsilon_max: Array  # float32 scalar, the cap
    label_factor: Array  # float32 scalar, c


def cat(attack: BudgetAttack, *, epsilon_step: float = 0.005, epsilon_max: float = 8 / 255, label_factor: float = 10.0) -> Budget:
    """The budget of customized adversarial training (CAT).

    Each step, with eta = ``epsilon_step``: the example is attacked at ``epsilon_i + eta``, and that is the training example; if
    it is misclassified there ``epsilon_i`` stays, else it becomes ``min(epsilon_i + eta, epsilon_max)``. Budgets start at 0. The
    target is ``(1 - c epsilon_i)`` times the one-hot label plus ``c epsilon_i`` times a draw from the Dirichlet distribution
    with all parameters 1, c = ``label_factor``.

    Args:
      attack: a :class:`bap_jax.budgets.uniform.BudgetAttack`; the authors' is PGD of 10 steps without a random start.
      epsilon_step: eta, above 0, in the attack's norm.
      epsilon_max: the cap on what is stored, above 0, in the attack's norm. The attack itself reaches eta beyond.
      label_factor: c, at least 0 and at most ``1 / epsilon_max``: beyond, a target would have a negative entry.

    Returns:
      A :class:`bap_jax.types.Budget` whose state is a :class:`CATState`; its ``epsilon`` is the radius of the attack.

    Raises:
      SettingError: a number outside its range.

    Example:
      >>> from functools import partial
      >>> from bap_jax.attacks import pgd
      >>> from bap_jax.types import Bounds
      >>> info = RunInfo(None, 3, Bounds(), (4,), num_examples=100, steps_per_epoch=10, num_steps=1100)
      >>> cat(partial(pgd, num_steps=10, random_start=False)).init(info).epsilons.shape
      (100,)

    References:
      Cheng et al. 2020, "CAT: Customized Adversarial Training for Improved Robustness", arXiv 2002.06789. A public
      reimplementation, hirokiadachi/Customized-Adversarial-Training, attacks the softened label; here the attack is at the label.
    """
    for name, value in (("epsilon_step", epsilon_step), ("epsilon_max", epsilon_max)):
        if not 0 < value < float("inf"):
            raise SettingError(name, value, "a finite number above 0")
    require_radii(attack, epsilon_step=epsilon_step, epsilon_max=epsilon_max)
    if not 0 <= label_factor * epsilon_max <= 1 + 1e-6:
        raise SettingError("label_factor", label_factor, f"a number in [0, 1 / epsilon_max = {1 / epsilon_max:g}]")

    def init(info: RunInfo) -> CATState:
        numbers = (jnp.float32(value) for value in (epsilon_step, epsilon_max, label_factor))
        return CATState(jnp.zeros(info.num_examples, jnp.float32), *numbers)

    def measure(keys: Array, logits_fn: LogitsFn, batch: Batch, state: CATState, *, step: Array) -> tuple[Adversarial, Array]:
        images, labels = batch.images, batch.labels
        attack_keys, label_keys = (jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i) for i in range(2))
        before = read_table(state.epsilons, batch)
        more = before + state.epsilon_step
        attacked = attack(AnyRadius(logits_fn), attack_keys, images, labels, epsilon=more).images
        fooled = misclassified(logits_fn(attacked), labels)
        after = jnp.minimum(jnp.where(fooled, before, more), state.epsilon_max)

        one_hot = targets_of(logits_fn, images, labels)
        shares = jax.vmap(lambda key: jax.random.exponential(key, one_hot.shape[1:]))(label_keys)
        dirichlet = shares / jnp.sum(shares, axis=1, keepdims=True)
        soft = jnp.minimum(state.label_factor * after, 1.0)[:, None]
        adversarial = Adversarial(attacked, more, (1.0 - soft) * one_hot + soft * dirichlet, batch.weight)
        return adversarial, after

    def agree(measured: tuple[Adversarial, Array], batch: Batch, state: CATState, *, gather: Gather) -> CATState:
        return state._replace(epsilons=write_table(state.epsilons, batch, measured[1], gather))

    return staged(init, measure, agree)
