"""The fast gradient sign method and its sisters in the other norms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit
from bap_jax.attacks.pgd import Objective
from bap_jax.mathematics.norms import steepest_direction
from bap_jax.mathematics.objectives import cross_entropy, successful
from bap_jax.mathematics.per_example import expand
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm


def fgsm(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    targeted: bool = False,
    objective: Objective = cross_entropy,
) -> AttackResult:
    """One gradient step of full length: x' = Π_box(x + ε·d), d the steepest unit step of the norm.

    d = sgn(g) for L∞, g/‖g‖₂ for L2 and RMS, the sign of the one feature with the largest |g| for L1. The best answer to the
    linearised loss, hence exact on linear models away from the walls of the box.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: ignored, nothing here is random; it stands here so that attacks are called alike.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      targeted: make the network answer ``labels``.
      objective: (logits, labels) to [B]; maximised, or minimised if ``targeted``.

    Returns:
      AttackResult: ``found`` is true where the image itself or the result is adversarial (the forward pass behind it vanishes
        under ``jit`` if unused); ``loss`` [1, B] is the objective at the image.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, -1.0], [1.0, -1.0]])
      >>> fgsm(linear, None, jnp.array([[0.75, 0.5]]), jnp.array([0]), epsilon=0.25).images
      Array([[0.5 , 0.25]], dtype=float32)

    References:
      Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples".
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)

    def value(current: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = logits_fn(current)
        losses = objective(logits, labels)
        return jnp.sum(losses), (losses, successful(logits, labels, targeted=targeted))

    gradient, (losses, hit) = jax.grad(value, has_aux=True)(images)
    step = expand(epsilon, images) * steepest_direction(-gradient if targeted else gradient, norm)
    attacked = clip_to_bounds(images + step, bounds)
    found = hit | successful(logits_fn(attacked), labels, targeted=targeted)
    return give(attacked, found, losses[None])
