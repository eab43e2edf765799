"""Attacks made once without a budget and cut to every budget: the protocol of blind adversarial pruning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from bap_jax.attacks._inputs import round_towards
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.projections import clip_to_bounds, project_ball
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm


def cut(images: Array, attacked: Array, epsilon: float | Array, norm: Norm, bounds: Bounds = Bounds()) -> Array:
    """Perturbations cut to a budget: Π_box(x + Π_ε(x' − x)), an element-wise clip for L∞ and δ·min(1, ε/‖δ‖) for L2 and RMS.

    Args:
      images: [B, ...] the clean images.
      attacked: [B, ...] what an attack made of them.
      epsilon: the budget in the norm's units, a scalar or [B]; may be traced, and as an array infinite.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.

    Returns:
      [B, ...] images within the budget, in half precision rounded towards the clean ones. Nothing says that they are still
      adversarial.

    Example:
      >>> import jax.numpy as jnp
      >>> cut(jnp.zeros((1, 4)), jnp.array([[0.6, 0.8, 0.0, 0.0]]), 0.25, "rms")  # the RMS of the perturbation is 0.5
      Array([[0.3, 0.4, 0. , 0. ]], dtype=float32)
    """
    start, whole = (points.astype(jnp.promote_types(points.dtype, jnp.float32)) for points in (images, attacked))
    points = clip_to_bounds(start + project_ball(whole - start, epsilon, norm), bounds)
    return points if points.dtype == images.dtype else round_towards(points, images)


@dataclass(frozen=True)
class Truncated:
    """An attack whose point is made once, whatever the budget, and then cut to each: what a threat's ``attack`` may be.

    Called like any attack it makes its point anew and cuts it; :func:`bap_jax.evaluation.evaluate_batches` makes it once for all
    budgets. Accuracy on cut points says how far away the uncut ones are, in this attack's directions. It is not robust accuracy:
    no attack was tried *at* the budget. It may rise with ε, since a longer piece of the same perturbation can lead back into the
    right class.
    """

    attack: Callable[[LogitsFn, Array, Array, Array, Array], AttackResult]  # whatever the epsilon
    norm: Norm
    bounds: Bounds
    minimal: bool  # whether the uncut point is meant to be a near one, so that its distance says something

    def __call__(self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon: Array) -> AttackResult:
        whole = self.attack(logits_fn, keys, images, labels, epsilon)
        start, far = (points.astype(jnp.promote_types(points.dtype, jnp.float32)) for points in (images, whole.images))
        within = per_example_norm(far - start, self.norm) <= epsilon
        return AttackResult(cut(images, whole.images, epsilon, self.norm, self.bounds), whole.found & within, whole.loss)
