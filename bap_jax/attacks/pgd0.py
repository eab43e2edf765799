"""PGD₀: projected gradient steps that leave all but k pixels alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks._inputs import admit, check_keys
from bap_jax.attacks.pgd import Objective
from bap_jax.errors import SettingError
from bap_jax.inputs import concrete
from bap_jax.mathematics.norms import normalize
from bap_jax.mathematics.objectives import cross_entropy, successful
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import check_radius, clip_to_bounds
from bap_jax.mathematics.top_k import top_k
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn


def pgd0(
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
    *,
    num_pixels: int | Array,
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    restarts: int = 5,
    step_size: float | Array = 120000 / 255,
    targeted: bool = False,
    objective: Objective = cross_entropy,
) -> AttackResult:
    """Gradient ascent on a loss of the label, where at most k pixels may change, by any amount within the box.

    With w the width of the box, δ = x − x₀ and g the gradient in units of the box: δ ← P(δ + α·w·g/‖g‖₁). The projection P is
    the nearest point (in L2) of {δ : at most k pixels, x₀ + δ in the box}: with e the part of |δ| beyond the box, it keeps the k
    pixels of the largest Σ_c (δ_c² − e_c²), clipped to the box. A restart begins at a point uniform in the box, projected.

    **Pixels, not features.** A pixel is all channels at one place: the last axis of images [B, H, W, C]; images of fewer
    dimensions have one channel. ``l0`` in this package counts features, so k pixels of C channels are an ``l0`` perturbation of
    up to k·C.

    What holds: rows do not influence each other; ties never make it k + 1 pixels; k = 0 gives the images back exactly; zero
    gradients give no NaN; no gradient flows through the result.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: [B] typed keys, one per row.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      num_pixels: k, an integer or [B] integers; may be traced. More than there are counts as all.
      bounds: the box, finite.
      num_steps: gradient steps of each restart, ≥ 1.
      restarts: how often to start anew, ≥ 1. Every restart runs to its end.
      step_size: α, the L1 length of a step in widths of the box, a scalar or [B].
      targeted: make the network answer ``labels`` instead of anything else.
      objective: (logits, labels) to [B], larger = the label less believed.

    Returns:
      AttackResult: ``images`` are the first restart's latest adversarial iterate, or, where none was met, the last restart's last
      iterate; an example that is adversarial already is returned as it is. ``loss`` [num_steps, B] is the objective before each
      step, of the chosen restart.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, -1.0], [0.5, -0.5]])
      >>> images, keys = jnp.array([[0.6, 0.5]]), jax.random.split(jax.random.key(0), 1)
      >>> pgd0(linear, keys, images - 1, jnp.array([0]), num_pixels=1, bounds=Bounds(-1.0, 1.0)).found
      Array([ True], dtype=bool)

    References:
      Croce and Hein 2019, "Sparse and Imperceivable Adversarial Attacks"; constants as in fra31/sparse-imperceivable-attacks,
      which evaluates num_steps − 1 points per restart and does not judge the last; its noise of 1e-12, lost in float32,
      and the 1e-10 that it adds to ‖g‖₁, which would shorten the steps of a saturated network, are left out.
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    _check(keys, images, num_pixels, bounds, num_steps, restarts, step_size)
    sign = -1 if targeted else 1
    lower, upper = (jnp.broadcast_to(jnp.asarray(side, images.dtype), images.shape) for side in bounds)
    width = upper - lower
    budget = jnp.broadcast_to(jnp.asarray(num_pixels, jnp.int32), labels.shape)

    def project(delta: Array) -> Array:
        inside = jnp.clip(delta, lower - images, upper - images)
        beyond = delta - inside
        gain = by_pixel(jnp.square(delta) - jnp.square(beyond)).sum(axis=-1)
        kept = jax.vmap(lambda scores, count: top_k([scores], count)[0])(gain, budget)
        inside = jnp.where(kept[:, :, None], by_pixel(inside), 0).reshape(images.shape)
        return clip_to_bounds(images + inside, bounds)

    def value(current: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = logits_fn(current)
        losses = objective(logits, labels)
        return jnp.sum(losses), (losses, successful(logits, labels, targeted=targeted))

    def iterate(carry: _Walk, _: None) -> tuple[_Walk, Array]:
        gradient, (losses, hit) = jax.grad(value, has_aux=True)(carry.current)
        carry = _remember(carry, hit)
        step = expand(step_size, images) * width * normalize(sign * width * gradient, "l1")
        return carry._replace(current=project(carry.current - images + step)), losses

    def run(best: _Best, restart: Array) -> tuple[_Best, None]:
        start = project(jax.vmap(lambda key: _uniform(key, restart, images))(keys) * width + lower - images)
        walk, losses = jax.lax.scan(iterate, _Walk(start, start, labels != labels), None, length=num_steps)
        walk = _remember(walk, successful(logits_fn(walk.current), labels, targeted=targeted))
        point = choose(walk.found, walk.kept, walk.current)
        images_ = choose(best.found, best.images, point)
        return _Best(images_, best.found | walk.found, jnp.where(best.found[None, :], best.losses, losses)), None

    logits = logits_fn(images)
    still = jnp.broadcast_to(objective(logits, labels)[None, :], (num_steps, len(labels)))
    begin = _Best(images, successful(logits, labels, targeted=targeted), still)
    best, _ = jax.lax.scan(run, begin, jnp.arange(restarts))
    return give(best.images, best.found, best.losses)


def by_pixel(images: Array) -> Array:
    """[B, H, W, C] as [B, H·W, C]; images of fewer dimensions [B, ...] as [B, D, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> by_pixel(jnp.ones((2, 4, 5, 3))).shape, by_pixel(jnp.ones((2, 7))).shape
      ((2, 20, 3), (2, 7, 1))
    """
    return images.reshape(images.shape[0], -1, images.shape[-1] if images.ndim >= 4 else 1)


def check_pixels(num_pixels: int | Array, images: Array) -> None:
    """Raise SettingError unless ``num_pixels`` is an integer ≥ 0 or [B] integers."""
    if isinstance(num_pixels, (bool, float)) or (isinstance(num_pixels, int) and num_pixels < 0):
        raise SettingError("num_pixels", num_pixels, "an integer ≥ 0, or one per example")
    counts = jnp.asarray(num_pixels)
    if not jnp.issubdtype(counts.dtype, jnp.integer) or counts.shape not in ((), images.shape[:1]):
        raise SettingError("num_pixels", f"{counts.dtype}{list(counts.shape)}", f"an integer, or {images.shape[0]} integers")
    numbers = concrete(num_pixels)
    if numbers is not None and np.any(numbers < 0):
        raise SettingError("num_pixels", int(np.min(numbers)), "integers ≥ 0")


def check_finite_box(bounds: Bounds) -> None:
    """Raise SettingError for a side of the box that is an infinite or undefined Python number."""
    if any(isinstance(side, (int, float)) and not math.isfinite(side) for side in bounds):
        raise SettingError("bounds", tuple(bounds), "a finite box: pixels are set to any value in it")


class _Walk(NamedTuple):
    current: Array  # [B, ...]
    kept: Array  # [B, ...] the latest adversarial iterate
    found: Array  # [B]


class _Best(NamedTuple):
    images: Array  # [B, ...] the point to return, as far as it is known
    found: Array  # [B]
    losses: Array  # [num_steps, B]


def _remember(walk: _Walk, hit: Array) -> _Walk:
    return walk._replace(kept=choose(hit, walk.current, walk.kept), found=walk.found | hit)


def _uniform(key: Array, restart: Array, images: Array) -> Array:
    return jax.random.uniform(jax.random.fold_in(key, restart), images.shape[1:], images.dtype)


def _check(
    keys: Array,
    images: Array,
    num_pixels: int | Array,
    bounds: Bounds,
    num_steps: int,
    restarts: int,
    step_size: float | Array,
) -> None:
    check_keys(keys, images)
    check_pixels(num_pixels, images)
    check_finite_box(bounds)
    check_radius("step_size", step_size)
    for name, count in (("num_steps", num_steps), ("restarts", restarts)):
        if not isinstance(count, int) or count < 1:
            raise SettingError(name, count, "an integer ≥ 1")
