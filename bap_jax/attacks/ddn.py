"""DDN: the direction follows the gradient, the norm whether the last point was adversarial."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit, check_keys, check_positive, check_steps
from bap_jax.attacks._nearest import Nearest, attack_result, cosine, farthest, keep_nearer, none_yet, per_row
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import normalize, per_example_norm
from bap_jax.mathematics.objectives import cross_entropy, successful
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn


def ddn(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    gamma: float | Array = 0.05,
    initial_epsilon: float | Array = 1.0,
    targeted: bool = False,
) -> AttackResult:
    """A small L2 perturbation by decoupling its direction from its norm.

    With g the gradient of the cross-entropy (of the label, or minus that of the wanted class) and α falling from 1 to 0.01 on a
    cosine, one step is ε ← ε·(1 − γ) if the point is adversarial, else ε·(1 + γ), at most the distance to the farthest corner of
    the box; δ ← δ + α·g/‖g‖₂; δ ← ε·δ/‖δ‖₂; x ← Π_box(x₀ + δ). Pixels are not rounded to 256 levels.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; only derivatives with respect to the images are taken.
      keys: [B] typed keys, one per row, or None. A row whose gradient is exactly zero walks in a random direction, drawn once;
        without keys it stays where it is.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      bounds: the box; Bounds(-inf, inf) for none.
      num_steps: gradient steps, ≥ 1; one forward and one backward pass each, and one forward pass for the last point.
      gamma: how fast the norm changes, in (0, 1).
      initial_epsilon: the norm of the first step, in input units; a scalar or [B].
      targeted: look for the wanted class instead of for any other.

    Returns:
      AttackResult: the nearest adversarial point met, the image itself where there was none (``found`` false) or where the image
      is adversarial already; ``loss`` [num_steps, B] is the cross-entropy before each step.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> result = ddn(linear, None, jnp.array([[0.5, 0.5]]), jnp.array([0]), bounds=Bounds(-1.0, 1.0))
      >>> jnp.linalg.norm(result.images - 0.5).round(2), result.found  # the plane is 3.5 / 5 away
      (Array(0.7, dtype=float32), Array([ True], dtype=bool))

    References:
      Rony et al. 2019, "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses",
      algorithm 1; the rule for a zero gradient after adv-lib, which draws anew in every step.
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    _check(keys, images, num_steps, gamma, initial_epsilon)
    sign = -1 if targeted else 1
    limit = farthest(images, bounds, "l2")
    wander = jnp.zeros_like(images) if keys is None else _directions(keys, images)

    def judge(current: Array) -> tuple[Array, Array]:
        logits = logits_fn(current)
        return cross_entropy(logits, labels), successful(logits, labels, targeted=targeted)

    def value(current: Array) -> tuple[Array, tuple[Array, Array]]:
        losses, hit = judge(current)
        return sign * jnp.sum(losses), (losses, hit)

    def iterate(walk: _Walk, step: Array) -> tuple[_Walk, Array]:
        gradient, (losses, hit) = jax.grad(value, has_aux=True)(walk.current)
        delta = walk.current - images
        nearest = keep_nearer(walk.nearest, hit, walk.current, per_example_norm(delta, "l2"))
        epsilon = jnp.minimum(walk.epsilon * jnp.where(hit, 1 - gamma, 1 + gamma), limit)
        flat = per_example_norm(gradient, "linf") == 0
        direction = choose(flat, wander, normalize(gradient, "l2"))
        moved = normalize(delta + cosine(step, num_steps, 1.0, 0.01) * direction, "l2")
        current = clip_to_bounds(images + expand(epsilon, images) * moved, bounds)
        return _Walk(current, epsilon, nearest), losses

    start = _Walk(images, per_row(initial_epsilon, images), none_yet(images))
    walk, losses = jax.lax.scan(iterate, start, jnp.arange(num_steps))
    _, hit = judge(walk.current)
    nearest = keep_nearer(walk.nearest, hit, walk.current, per_example_norm(walk.current - images, "l2"))
    return attack_result(nearest, losses, give)


class _Walk(NamedTuple):
    current: Array  # [B, ...]
    epsilon: Array  # [B] the norm of the next perturbation
    nearest: Nearest


def _directions(keys: Array, images: Array) -> Array:
    draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))
    return normalize(draw(keys), "l2")


def _check(
    keys: Array | None,
    images: Array,
    num_steps: int,
    gamma: float | Array,
    initial_epsilon: float | Array,
) -> None:
    check_steps("num_steps", num_steps)
    check_positive("initial_epsilon", initial_epsilon)
    check_positive("gamma", gamma)
    if isinstance(gamma, (int, float)) and gamma >= 1:
        raise SettingError("gamma", gamma, "a number in (0, 1)")
    if keys is not None:
        check_keys(keys, images)
