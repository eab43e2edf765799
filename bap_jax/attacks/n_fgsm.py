"""Noise-FGSM: one gradient step from a noisy image, beyond the ball."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit, check_keys, check_positive
from bap_jax.attacks.fgsm import fgsm
from bap_jax.attacks.pgd import Objective
from bap_jax.mathematics.objectives import cross_entropy
from bap_jax.mathematics.per_example import expand
from bap_jax.mathematics.projections import clip_to_bounds, uniform_in_ball
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm


def n_fgsm(
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    noise: float = 2.0,
    step_size: float = 1.0,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    targeted: bool = False,
    objective: Objective = cross_entropy,
) -> AttackResult:
    """One gradient step from an image with strong noise: x' = Π_box(x̃ + α·ε·d), x̃ = Π_box(x + η), η uniform in the ball k·ε.

    d is the steepest unit step of the norm at x̃. **By design nothing is projected on the ball of ε**: ‖x' − x‖ may be as large
    as (k + α)·ε, three times the radius as published. It is an attack to train with, not one to evaluate with; what is trained
    against is still called ε. Published in L∞, with k = 2 and α = 1: the noise is what keeps single-step training from
    catastrophic overfitting.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: [B] typed keys, one per row.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      noise: k, as a multiple of ``epsilon``.
      step_size: α, as a multiple of ``epsilon``.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box, which is kept.
      targeted: make the network answer ``labels``.
      objective: (logits, labels) to [B]; maximised, or minimised if ``targeted``.

    Returns:
      AttackResult: ``found`` is true where the noisy image or the result is adversarial (the forward pass behind it vanishes
        under ``jit`` if unused); ``loss`` [1, B] is the objective at the noisy image.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, -1.0], [1.0, -1.0]])
      >>> keys, images = jax.random.split(jax.random.key(0), 1), jnp.array([[0.75, 0.5]])
      >>> found = n_fgsm(linear, keys, images, jnp.array([0]), epsilon=0.1)
      >>> far = abs(found.images - images).max()
      >>> bool(far > 0.1), bool(far <= 0.3)
      (True, True)

    References:
      de Jorge et al. 2022, "Make Some Noise: Reliable and Efficient Single-Step Adversarial Training".
    """
    work = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    check_keys(keys, work.images)
    check_positive("noise", noise)
    check_positive("step_size", step_size)

    def draw(key: Array) -> Array:
        return uniform_in_ball(key, work.images.shape[1:], norm, work.images.dtype)

    start = clip_to_bounds(work.images + expand(noise * jnp.asarray(epsilon), work.images) * jax.vmap(draw)(keys), bounds)
    length = step_size * jnp.asarray(epsilon)
    result = fgsm(
        work.logits_fn, None, start, work.labels, epsilon=length, norm=norm, bounds=bounds, targeted=targeted, objective=objective
    )
    return work.give(*result)
