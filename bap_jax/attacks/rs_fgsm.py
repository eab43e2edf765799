"""FGSM with a random start, which makes adversarial training as cheap as two passes."""

from __future__ import annotations

from bap_jax.attacks._inputs import check_positive
from bap_jax.attacks.pgd import Objective, pgd
from bap_jax.mathematics.objectives import cross_entropy
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm


def rs_fgsm(
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    step_size: float = 1.25,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    targeted: bool = False,
    objective: Objective = cross_entropy,
) -> AttackResult:
    """One gradient step from a random point: x' = Π_box(Π_ε(x̃ + α·ε·d)), x̃ = Π_box(x + η), η uniform in the ball of ε.

    d is the steepest unit step of the norm (:func:`bap_jax.attacks.pgd`, of which this is one step). Published in L∞, with
    α = 1.25; longer steps, and large ε, invite catastrophic overfitting: the network learns to answer this step and falls to a
    shorter one.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: [B] typed keys, one per row.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      step_size: α, as a multiple of ``epsilon``.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      targeted: make the network answer ``labels``.
      objective: (logits, labels) to [B]; maximised, or minimised if ``targeted``.

    Returns:
      AttackResult: ``found`` is true where the start or the result is adversarial (the forward pass behind it vanishes under
        ``jit`` if unused); ``loss`` [1, B] is the objective at the start.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, -1.0], [1.0, -1.0]])
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> found = rs_fgsm(linear, keys, jnp.array([[0.75, 0.5]]), jnp.array([0]), epsilon=0.25, step_size=2.0)
      >>> found.images  # two radii reach the corner from every start
      Array([[0.5 , 0.25]], dtype=float32)

    References:
      Wong, Rice and Kolter 2020, "Fast is better than free: Revisiting adversarial training".
    """
    check_positive("step_size", step_size)
    return pgd(
        logits_fn,
        keys,
        images,
        labels,
        epsilon=epsilon,
        num_steps=1,
        step_size=step_size * epsilon,
        norm=norm,
        bounds=bounds,
        targeted=targeted,
        objective=objective,
    )
