"""Max-margin adversarial training: every example is attacked at its own margin, which is found again in every epoch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import AnyRadius, check_float32
from bap_jax.budgets._per_example import read_table, write_table
from bap_jax.budgets._staged import staged
from bap_jax.budgets.none import targets_of
from bap_jax.budgets.uniform import BudgetAttack, require_radii
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import soft_margin_loss
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Adversarial, Array, Batch, Bounds, Budget, Gather, LogitsFn, RunInfo

REACH = 1.05  # the search goes this much beyond d_max, so that a margin of d_max is told from one beyond


class MMAState(NamedTuple):
    """The margins found so far; the radii are leaves, so that a sweep may batch them."""

    epsilons: Array  # [num_examples] float32, 0 where the example was wrong or not seen yet
    epsilon_min: Array  # float32 scalar, least radius that is attacked at
    epsilon_max: Array  # float32 scalar, d_max


def mma(
    attack: BudgetAttack,
    *,
    epsilon_min: float = 0.005,
    epsilon_max: float = 32 / 255,
    num_bisections: int = 10,
    bounds: Bounds = Bounds(),
) -> Budget:
    """The budget of max-margin adversarial training (MMA): ``epsilon_i`` is the example's margin, up to ``d_max``.

    A correctly classified example is attacked at its stored margin, at ``epsilon_min`` at least; along the direction d that the
    attack went, per unit of its radius, ``num_bisections`` halvings of [0, 1.05 d_max] look for the zero of the soft logit
    margin, log sum_{j != y} exp z_j - z_y: that is ``epsilon_i``, which is stored, and the training example is x + epsilon_i d.
    It weighs nothing where ``epsilon_i >= d_max``: such a margin is wide enough. A wrongly classified example (soft margin >= 0)
    is trained on as it is, stores 0 and weighs 1. :func:`bap_jax.losses.mma` is the loss that belongs to it.

    Args:
      attack: maximises the soft logit margin at a radius per example, e.g. ``functools.partial(pgd, norm="linf", num_steps=10,
        objective=soft_margin_loss)``.
      epsilon_min: least radius of that attack, in the attack's norm; 0.005 is the authors' for L-infinity on CIFAR-10 (0.1 on
        MNIST; 0.5 for L2 on CIFAR-10).
      epsilon_max: d_max, in the attack's norm; the authors' are 12, 20 and 32 of 255 for L-infinity on CIFAR-10 (0.45 on MNIST;
        1, 2 and 3 for L2 on CIFAR-10).
      num_bisections: halvings, at least 1, a forward pass each.
      bounds: the box of the images.

    Returns:
      A :class:`bap_jax.types.Budget` whose state is an :class:`MMAState`.

    Raises:
      SettingError: a radius that is not positive and finite, ``epsilon_min`` above ``epsilon_max``, no halvings.

    Example:
      >>> from functools import partial
      >>> from bap_jax.attacks import pgd
      >>> info = RunInfo(None, 3, Bounds(), (4,), num_examples=100, steps_per_epoch=10, num_steps=1100)
      >>> state = mma(partial(pgd, num_steps=10, objective=soft_margin_loss), epsilon_max=0.45).init(info)
      >>> state.epsilons.shape, round(float(state.epsilon_max), 2)
      ((100,), 0.45)

    References:
      Ding et al. 2020, "MMA Training: Direct Input Space Margin Maximization through Adversarial Training"; public repository
      BorealisAI/mma_training, whose training example is not clipped to the box: ours is.
    """
    for name, value in (("epsilon_min", epsilon_min), ("epsilon_max", epsilon_max)):
        if not 0 < value < float("inf"):
            raise SettingError(name, value, "a finite radius above 0")
    if epsilon_min > epsilon_max:
        raise SettingError("epsilon_min", epsilon_min, f"at most epsilon_max = {epsilon_max:g}")
    require_radii(attack, epsilon_min=epsilon_min, epsilon_max=epsilon_max)
    if num_bisections < 1:
        raise SettingError("num_bisections", num_bisections, "an integer of at least 1")

    def init(info: RunInfo) -> MMAState:
        return MMAState(jnp.zeros(info.num_examples, jnp.float32), jnp.float32(epsilon_min), jnp.float32(epsilon_max))

    def measure(keys: Array, logits_fn: LogitsFn, batch: Batch, state: MMAState, *, step: Array) -> tuple[Adversarial, Array]:
        images, labels = batch.images, batch.labels
        check_float32(images)

        def wrong(points: Array) -> Array:
            loss = soft_margin_loss(logits_fn(points), labels)
            return (loss >= 0) & jnp.isfinite(loss)

        start = jnp.maximum(read_table(state.epsilons, batch), state.epsilon_min)
        far = attack(AnyRadius(logits_fn), keys, images, labels, epsilon=start).images
        direction = (far - images) / expand(start, images)

        def at(radius: Array) -> Array:
            return clip_to_bounds(images + expand(radius, images) * direction, bounds)

        def halve(_, search):
            low, high, radius = search
            hit = wrong(at(radius))
            low, high = jnp.where(hit, low, radius), jnp.where(hit, radius, high)
            return low, high, (low + high) / 2

        ends = jnp.zeros_like(start), jnp.broadcast_to(REACH * state.epsilon_max, start.shape)
        _, _, margin = jax.lax.fori_loop(0, num_bisections, halve, (*ends, jnp.minimum(start, ends[1])))

        wrong_already = wrong(images)
        epsilon = jnp.where(wrong_already, 0.0, margin)
        weight = batch.weight * (wrong_already | (epsilon < state.epsilon_max))
        adversarial = Adversarial(
            choose(wrong_already, images, at(epsilon)), epsilon, targets_of(logits_fn, images, labels), weight
        )
        return adversarial, epsilon

    def agree(measured: tuple[Adversarial, Array], batch: Batch, state: MMAState, *, gather: Gather) -> MMAState:
        return state._replace(epsilons=write_table(state.epsilons, batch, measured[1], gather))

    return staged(init, measure, agree)
