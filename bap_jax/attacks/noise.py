"""Random noise, the control of every other attack."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit, check_keys
from bap_jax.attacks.pgd import Objective
from bap_jax.attacks.pgd0 import check_finite_box
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import check_norm
from bap_jax.mathematics.objectives import margin_loss, successful
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import clip_to_bounds, uniform_in_ball
from bap_jax.mathematics.top_k import top_k
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm


def noise(
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    num_samples: int = 100,
    targeted: bool = False,
    objective: Objective = margin_loss,
) -> AttackResult:
    """Points drawn uniformly from the ball around each image and clipped to the box; no gradient is taken.

    A network that falls to noise and not to a gradient attack of the same budget hides its gradients: nothing else explains
    that the weaker search finds more. ``l0`` draws ⌊ε⌋ features and sets them to values uniform in the box.

    What holds: rows do not influence each other; the draws of ``num_samples`` are the first of those of any larger number, so
    more samples never find less; with ε = 0 the images come back exactly.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; nothing is differentiated.
      keys: [B] typed keys, one per row.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced. ``l0``: a number of features.
      norm: ``linf``, ``l2``, ``l1``, ``l0`` or ``rms``.
      bounds: the box; finite for ``l0``.
      num_samples: points drawn for each image, ≥ 1.
      targeted: make the network answer ``labels`` instead of anything else.
      objective: (logits, labels) to [B], larger = the label less believed; which point to return where none is adversarial.

    Returns:
      AttackResult: ``images`` is an adversarial draw where there was one, else the draw with the best objective; ``loss``
      [num_samples, B] is the objective of every draw.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, -1.0], [1.0, -1.0]])
      >>> images, keys = jnp.array([[0.2, 0.1]]), jax.random.split(jax.random.key(0), 1)
      >>> bounds = Bounds(-1.0, 1.0)
      >>> [bool(noise(linear, keys, images, jnp.array([0]), epsilon=e, bounds=bounds).found[0]) for e in (0.1, 0.4)]
      [False, True]

    References:
      Carlini et al. 2019, "On Evaluating Adversarial Robustness" (random search as a check of gradient attacks).
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    _check(keys, images, norm, bounds, num_samples)
    sign = -1 if targeted else 1
    shape, size = images.shape[1:], expand(epsilon, images)

    def draw(sample: Array) -> Array:
        sample_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, sample)
        if norm == "l0":
            return _replace_features(sample_keys, images, epsilon, bounds)
        unit = jax.vmap(lambda key: uniform_in_ball(key, shape, norm, images.dtype))(sample_keys)
        return clip_to_bounds(images + size * unit, bounds)

    def judge(best: _Best, sample: Array) -> tuple[_Best, Array]:
        point = draw(sample)
        logits = logits_fn(point)
        losses = objective(logits, labels)
        hit = successful(logits, labels, targeted=targeted)
        better = ~best.found & (hit | (sign * losses > best.score) | (sample == 0))
        best = _Best(choose(better, point, best.images), best.found | hit, jnp.where(better, sign * losses, best.score))
        return best, losses

    begin = _Best(images, labels != labels, jnp.full(labels.shape, -jnp.inf, images.dtype))
    best, losses = jax.lax.scan(judge, begin, jnp.arange(num_samples))
    return give(best.images, best.found, losses)


class _Best(NamedTuple):
    images: Array  # [B, ...]
    found: Array  # [B]
    score: Array  # [B]


def _replace_features(keys: Array, images: Array, epsilon: float | Array, bounds: Bounds) -> Array:
    lower, upper = (jnp.broadcast_to(jnp.asarray(side, images.dtype), images.shape) for side in bounds)
    counts = jnp.broadcast_to(jnp.floor(jnp.asarray(epsilon, images.dtype)), keys.shape).astype(jnp.int32)

    def draw(key: Array, image: Array, low: Array, high: Array, count: Array) -> Array:
        order_key, value_key = jax.random.split(key)
        chosen = top_k([jax.random.uniform(order_key, image.shape)], count)[0]
        return jnp.where(chosen, low + (high - low) * jax.random.uniform(value_key, image.shape, image.dtype), image)

    return jax.vmap(draw)(keys, images, lower, upper, counts)


def _check(keys: Array, images: Array, norm: Norm, bounds: Bounds, num_samples: int) -> None:
    check_keys(keys, images)
    check_norm(norm)
    if norm == "l0":
        check_finite_box(bounds)
    if not isinstance(num_samples, int) or num_samples < 1:
        raise SettingError("num_samples", num_samples, "an integer ≥ 1")
