"""Friendly adversarial training: one radius for all, but each example's attack stops soon after it succeeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp

from bap_jax.attacks.friendly_pgd import friendly_pgd
from bap_jax.attacks.pgd import Objective
from bap_jax.budgets._parts import check_part, in_steps
from bap_jax.budgets.none import targets_of
from bap_jax.errors import SettingError
from bap_jax.inputs import require_radius
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.objectives import cross_entropy
from bap_jax.types import Adversarial, Array, Batch, Bounds, Budget, Gather, LogitsFn, Norm, RunInfo


class FATState(NamedTuple):
    """The radius and when tau rises; leaves, so that a sweep may batch them."""

    epsilon: Array  # float32 scalar
    tau_steps: Array  # [T] int32, the training steps from which tau is 1, 2, ..., T
    tau: Array  # int32 scalar, of the last step


def fat(
    *,
    tau_rises: Sequence[float] = (50 / 120, 90 / 120),
    tau_steps: Sequence[int] | None = None,
    epsilon: float = 0.031,
    num_steps: int = 10,
    relative_step_size: float = 7 / 31,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    objective: Objective | Literal["kl"] = cross_entropy,
    noise: float = 1e-3,
) -> Budget:
    """The budget of friendly adversarial training (FAT): PGD from a uniform start that stops per example.

    An example's attack ends when it is misclassified and was so at ``tau`` tests before; a test precedes each step. Over training
    tau is the number of ``tau_steps`` that have been reached.

    Args:
      tau_rises: parts of training after which tau goes up by one, in [0, 1] and not falling; () keeps it 0. By default the
        authors', the ends of epochs 50 and 90 of 120.
      tau_steps: the same in training steps, in place of ``tau_rises``.
      epsilon: radius of the ball, in ``norm``, at least 0.
      num_steps, relative_step_size, norm, bounds, objective, noise: see :func:`bap_jax.attacks.friendly_pgd.friendly_pgd`;
        ``"kl"`` is the form for TRADES.

    Returns:
      A :class:`bap_jax.types.Budget` whose state is a :class:`FATState`; its ``epsilon`` is how far each example went.

    Raises:
      SettingError: a radius that is negative or not finite, steps that fall or are negative; when called, what
        :func:`bap_jax.attacks.friendly_pgd.friendly_pgd` refuses.

    Example:
      >>> info = RunInfo(None, 3, Bounds(), (4,), num_examples=100, steps_per_epoch=10, num_steps=1200)
      >>> fat().init(info).tau_steps.tolist()
      [500, 900]

    References:
      Zhang et al. 2020, "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger", arXiv 2002.11242; public
      repository zjfheart/Friendly-Adversarial-Training.
    """
    if not 0 <= epsilon < float("inf"):
        raise SettingError("epsilon", epsilon, "a finite number of at least 0")
    require_radius(epsilon, norm, bounds)
    rises = tuple(tau_rises)
    for rise in rises:
        check_part("tau_rises", rise)
    if list(rises) != sorted(rises):
        raise SettingError("tau_rises", rises, "parts of training that do not fall")
    given = None if tau_steps is None else tuple(tau_steps)
    if given is not None and (any(number < 0 for number in given) or list(given) != sorted(given)):
        raise SettingError("tau_steps", given, "training steps of at least 0 that do not fall")

    def init(info: RunInfo) -> FATState:
        steps = [in_steps("tau_rises", rise, info) for rise in rises] if given is None else given
        return FATState(jnp.float32(epsilon), jnp.array(steps, jnp.int32), jnp.int32(0))

    def perturb(keys: Array, logits_fn: LogitsFn, batch: Batch, state: FATState, *, step: Array, gather: Gather):
        tau = jnp.sum(step >= state.tau_steps, dtype=jnp.int32)
        images = friendly_pgd(
            logits_fn,
            keys,
            batch.images,
            batch.labels,
            epsilon=state.epsilon,
            tau=tau,
            num_steps=num_steps,
            relative_step_size=relative_step_size,
            norm=norm,
            bounds=bounds,
            objective=objective,
            noise=noise,
        ).images
        went = per_example_norm(images - batch.images, norm)
        return Adversarial(images, went, targets_of(logits_fn, batch.images, batch.labels), batch.weight), state._replace(tau=tau)

    return Budget(init, perturb)
