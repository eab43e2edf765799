"""Instance-adaptive adversarial training: each example's budget goes up while it stays robust, and down where it does not."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import AnyRadius
from bap_jax.budgets._parts import check_part, in_steps
from bap_jax.budgets._per_example import read_table, write_table
from bap_jax.budgets._staged import staged
from bap_jax.budgets.none import targets_of
from bap_jax.budgets.uniform import BudgetAttack, require_radii
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import misclassified
from bap_jax.types import Adversarial, Array, Batch, Budget, Gather, LogitsFn, RunInfo


class IAATState(NamedTuple):
    """The budgets so far; what they follow are leaves, so that a sweep may batch it."""

    epsilons: Array  # [num_examples] float32
    epsilon: Array  # float32 scalar, the budget of the warm-up
    epsilon_step: Array  # float32 scalar, gamma
    rate: Array  # float32 scalar, beta
    warmup_steps: Array  # int32 scalar


def iaat(
    attack: BudgetAttack,
    *,
    epsilon: float = 8 / 255,
    epsilon_step: float = 1.9 / 255,
    rate: float = 0.1,
    warmup: float = 10 / 110,
    warmup_steps: int | None = None,
) -> Budget:
    """The budget of instance-adaptive adversarial training (IAAT).

    In the warm-up ``epsilon_i = epsilon`` where the clean image is classified correctly, else 0. Then, with gamma =
    ``epsilon_step`` and beta = ``rate``, the example is attacked at ``epsilon_i`` and at ``epsilon_i + gamma``; chosen is
    ``epsilon_i + gamma`` if it is robust there, else ``epsilon_i`` if it is robust there, else ``epsilon_i - gamma``, not below
    0, and 0 where the clean image is misclassified; ``epsilon_i <- beta * chosen + (1 - beta) * epsilon_i``. There is no upper
    cap. A third attack, at the new ``epsilon_i``, makes the training example.

    Args:
      attack: a :class:`bap_jax.budgets.uniform.BudgetAttack`, for all three. The authors' has 10 steps of max(epsilon_i / 5,
        2/255).
      epsilon: radius of the warm-up, in the attack's norm, at least 0.
      epsilon_step: gamma, above 0.
      rate: beta, in (0, 1].
      warmup: the part of training before budgets adapt, in [0, 1]; by default the authors', 10 of 110 epochs.
      warmup_steps: the same in training steps, at least 0, in place of ``warmup``.

    Returns:
      A :class:`bap_jax.types.Budget` whose state is an :class:`IAATState`. A step costs three attacks after the warm-up.

    Raises:
      SettingError: a number outside its range.

    Example:
      >>> from functools import partial
      >>> from bap_jax.attacks import pgd
      >>> from bap_jax.types import Bounds
      >>> info = RunInfo(None, 3, Bounds(), (4,), num_examples=100, steps_per_epoch=10, num_steps=1100)
      >>> int(iaat(partial(pgd, num_steps=10)).init(info).warmup_steps)
      100

    References:
      Balaji, Goldstein and Hoffman 2019, "Instance adaptive adversarial training: Improved accuracy tradeoffs in neural nets",
      arXiv 1910.08051; public repository yogeshbalaji/Instance_Adaptive_Adversarial_Training, which attacks in training mode:
      here, as everywhere, the network is in evaluation mode.
    """
    check_part("warmup", warmup)
    if warmup_steps is not None and warmup_steps < 0:
        raise SettingError("warmup_steps", warmup_steps, "a whole number of at least 0")
    if not 0 <= epsilon < float("inf"):
        raise SettingError("epsilon", epsilon, "a finite number of at least 0")
    if not 0 < epsilon_step < float("inf"):
        raise SettingError("epsilon_step", epsilon_step, "a finite number above 0")
    require_radii(attack, epsilon=epsilon, epsilon_step=epsilon_step)
    if not 0 < rate <= 1:
        raise SettingError("rate", rate, "a number in (0, 1]")

    def init(info: RunInfo) -> IAATState:
        steps = in_steps("warmup", warmup, info) if warmup_steps is None else warmup_steps
        return IAATState(
            epsilons=jnp.zeros(info.num_examples, jnp.float32),
            epsilon=jnp.float32(epsilon),
            epsilon_step=jnp.float32(epsilon_step),
            rate=jnp.float32(rate),
            warmup_steps=jnp.int32(steps),
        )

    def measure(keys: Array, logits_fn: LogitsFn, batch: Batch, state: IAATState, *, step: Array) -> tuple[Adversarial, Array]:
        images, labels = batch.images, batch.labels
        same_keys, more_keys, final_keys = (jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i) for i in range(3))
        correct = ~misclassified(logits_fn(images), labels)

        def robust(attack_keys: Array, radius: Array) -> Array:
            attacked = attack(AnyRadius(logits_fn), attack_keys, images, labels, epsilon=radius).images
            return ~misclassified(logits_fn(attacked), labels)

        def adapted() -> Array:
            before = read_table(state.epsilons, batch)
            more, less = before + state.epsilon_step, before - state.epsilon_step
            chosen = jnp.where(robust(more_keys, more), more, jnp.where(robust(same_keys, before), before, less))
            chosen = jnp.where(correct, jnp.maximum(chosen, 0.0), 0.0)
            return state.rate * chosen + (1.0 - state.rate) * before

        def warm() -> Array:
            return jnp.where(correct, state.epsilon, 0.0)

        budgets = jax.lax.cond(step < state.warmup_steps, warm, adapted)
        attacked = attack(AnyRadius(logits_fn), final_keys, images, labels, epsilon=budgets).images
        adversarial = Adversarial(attacked, budgets, targets_of(logits_fn, images, labels), batch.weight)
        return adversarial, budgets

    def agree(measured: tuple[Adversarial, Array], batch: Batch, state: IAATState, *, gather: Gather) -> IAATState:
        return state._replace(epsilons=write_table(state.epsilons, batch, measured[1], gather))

    return staged(init, measure, agree)
