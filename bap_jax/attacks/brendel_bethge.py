"""Brendel-Bethge: along the boundary, from an adversarial point, by the best step that a trust region allows."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks._inputs import admit, check_keys, check_points, check_positive, check_steps
from bap_jax.attacks._nearest import Nearest, attack_result, farthest, keep_nearer, none_yet, per_row
from bap_jax.attacks._trust_region import MinimalNorm, nearest_step
from bap_jax.attacks.bisection import bisection
from bap_jax.errors import SettingError
from bap_jax.inputs import concrete
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.objectives import margin_loss, successful
from bap_jax.mathematics.per_example import choose
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn


def brendel_bethge(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    norm: MinimalNorm = "l2",
    bounds: Bounds = Bounds(),
    num_steps: int = 1000,
    radius: float | Array | None = None,
    num_decays: int = 20,
    momentum: float | Array = 0.8,
    overshoot: float | Array = 1.1,
    starting_points: Array | None = None,
    start_steps: int = 10,
    search_steps: int = 10,
    targeted: bool = False,
) -> AttackResult:
    """A small perturbation by a walk along the boundary between adversarial and not.

    From an adversarial point a binary search leads to the boundary. Then with m the margin of the label over the best other
    class (negative where the point is adversarial) and g its gradient, averaged over the steps by the momentum β, a step is

        d = argmin ‖x + d − x₀‖_p  subject to  ⟨g, d⟩ ≤ −m·(a if m > 0 else 2 − a),  ‖d‖₂ ≤ r,  x + d in the box

    with the overshoot a: back over the boundary where the point lies before it, not quite up to it where it lies beyond. The
    published problem has an equality; the inequality is its better half, for what is nearer and more adversarial is welcome. r
    halves ``num_decays`` times, at even distances. See :func:`bap_jax.attacks._trust_region.nearest_step` for how it is solved.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; only derivatives with respect to the images are taken.
      keys: [B] typed keys, one per row, or None. With keys, rows without a starting point look at uniform noise, too.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      norm: ``linf``, ``l2``, ``l1`` or ``l0`` (features, not pixels).
      bounds: the box; it has to be finite.
      num_steps: steps along the boundary, ≥ 1; one forward and one backward pass each, and one forward pass for the last point.
      radius: the first r, an L2 length in input units; a scalar or [B]. By default the width of the box, or D / 1000 of it if
        that is more; for L0, whose steps are whole features, a thousand of it: there only the last steps are limited.
      num_decays: how often r halves.
      momentum: β in [0, 1).
      overshoot: a in (1, 2).
      starting_points: [B, ...] adversarial points inside ``bounds``, images of other classes for instance. By default each row
        walks along the signs of its own margin's gradient, ``start_steps`` steps of a quarter of the box, until it is
        adversarial.
      start_steps: steps of that walk, and draws of noise, ≥ 1.
      search_steps: halvings of the binary search, ≥ 1; L0 takes as many more as its features need.
      targeted: look for the wanted class instead of for any other.

    Returns:
      AttackResult: the nearest adversarial point met, the image itself where there was none (``found`` false) or where the image
      is adversarial already; ``loss`` [num_steps, B] is the negative margin of the label before each step.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> image, label = jnp.array([[0.5, 0.5]]), jnp.array([0])
      >>> result = brendel_bethge(linear, None, image, label, bounds=Bounds(-1.0, 1.0), num_steps=40)
      >>> jnp.linalg.norm(result.images - 0.5).round(2), result.found  # the plane is 3.5 / 5 away
      (Array(0.7, dtype=float32), Array([ True], dtype=bool))

    References:
      Brendel, Rauber, Kümmerer, Ustyuzhaninov and Bethge 2019, "Accurate, reliable and fast robustness evaluation". foolbox
      (public code) scales r by the number of values in the batch, and starts from blended noise; here both are each row's own.
      The radius of L0: Merkle, Samsinger and Schöttle 2022, "Pruning in the Face of Adversaries".
    """
    _check(norm, bounds, num_steps, radius, num_decays, momentum, overshoot, start_steps)
    if starting_points is not None:
        check_points("starting_points", starting_points, images)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    if keys is not None:
        check_keys(keys, images)
    flat = (images.shape[0], -1)
    lower, upper = (jnp.broadcast_to(jnp.asarray(side, images.dtype), images.shape) for side in bounds)
    width = jnp.max(upper - lower)
    clean, low, high = (part.reshape(flat) / width for part in (images, lower, upper))
    widths = 1e3 if norm == "l0" else max(1.0, clean.shape[1] / 1000)
    longest = per_row(widths * width if radius is None else radius, images) / width
    sign = -1 if targeted else 1

    def judge(current: Array) -> tuple[Array, Array]:
        logits = logits_fn(current)
        return margin_loss(logits, labels), successful(logits, labels, targeted=targeted)

    def value(current: Array) -> tuple[Array, tuple[Array, Array]]:
        losses, hit = judge(current)
        return -sign * jnp.sum(losses), (losses, hit)

    def iterate(walk: _Walk, step: Array) -> tuple[_Walk, Array]:
        gradient, (losses, hit) = jax.grad(value, has_aux=True)(walk.current)
        nearest = keep_nearer(walk.nearest, hit, walk.current, per_example_norm(walk.current - images, norm))
        normal = jnp.where(step == 0, gradient, momentum * walk.normal + (1 - momentum) * gradient)
        margin = -sign * losses
        asked = -margin * jnp.where(margin > 0, overshoot, 2 - overshoot)
        point = walk.current.reshape(flat) / width
        moved = nearest_step(
            point - clean,
            normal.reshape(flat) * width,
            asked,
            longest * 0.5 ** (step * num_decays // num_steps),
            jnp.minimum(low - point, 0),
            jnp.maximum(high - point, 0),
            norm=norm,
        )
        current = clip_to_bounds(images + ((point - clean + moved) * width).reshape(images.shape), bounds)
        return _Walk(current, normal, nearest), losses

    if starting_points is None:
        starting_points = _start(jax.grad(value, has_aux=True), judge, keys, images, bounds, (upper - lower) / 4, start_steps)
    halvings = search_steps + (clean.shape[1].bit_length() if norm == "l0" else 0)
    given: dict[str, Any] = {"adversarial": jnp.asarray(starting_points, images.dtype), "norm": norm, "bounds": bounds}
    begun = bisection(logits_fn, keys, images, labels, num_steps=halvings, targeted=targeted, **given)
    start = keep_nearer(none_yet(images), begun.found, begun.images, per_example_norm(begun.images - images, norm))
    walk, losses = jax.lax.scan(iterate, _Walk(begun.images, 0 * images, start), jnp.arange(num_steps))
    _, hit = judge(walk.current)
    nearest = keep_nearer(walk.nearest, hit, walk.current, per_example_norm(walk.current - images, norm))
    return attack_result(nearest, losses, give)


class _Walk(NamedTuple):
    current: Array  # [B, ...]
    normal: Array  # [B, ...] the margin's gradient, averaged over the steps
    nearest: Nearest


def _start(descent, judge, keys: Array | None, images: Array, bounds: Bounds, stride: Array, num_steps: int) -> Array:
    """[B, ...] an adversarial point of every row that one was found for, else the last that was looked at."""

    def look(search: tuple[Array, Array], points: Array) -> tuple[Array, Array]:
        start, found = search
        _, hit = judge(points)
        return choose(found, start, points), found | hit

    def walk(carry: tuple[Array, tuple[Array, Array]], _: None):
        current, search = carry
        gradient, _ = descent(current)
        current = clip_to_bounds(current - stride * jnp.sign(gradient), bounds)
        return (current, look(search, current)), None

    def draw(search: tuple[Array, Array], number: Array):
        lower, upper = (jnp.broadcast_to(jnp.asarray(side, images.dtype), images.shape) for side in bounds)
        own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(cast(Array, keys), number)
        shares = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype))(own)
        return look(search, lower + shares * (upper - lower)), None

    none_found = farthest(images, bounds, "linf") < 0  # [B] false, spread over devices as the images are
    (_, search), _ = jax.lax.scan(walk, (images, (images, none_found)), None, length=num_steps)
    if keys is not None:
        search, _ = jax.lax.scan(draw, search, jnp.arange(num_steps))
    return search[0]


def _check(
    norm: str,
    bounds: Bounds,
    num_steps: int,
    radius: float | Array | None,
    num_decays: int,
    momentum: float | Array,
    overshoot: float | Array,
    start_steps: int,
) -> None:
    if norm not in ("linf", "l2", "l1", "l0"):
        raise SettingError("norm", norm, "one of linf, l2, l1, l0")
    for side in bounds:
        known = concrete(side)
        if known is not None and not np.isfinite(known).all():
            raise SettingError("bounds", bounds, "a finite box: the walk begins far away in it")
    check_steps("num_steps", num_steps)
    check_steps("start_steps", start_steps)
    if not isinstance(num_decays, int) or num_decays < 0:
        raise SettingError("num_decays", num_decays, "an integer ≥ 0")
    if radius is not None:
        check_positive("radius", radius)
    if isinstance(momentum, (int, float)) and not 0 <= momentum < 1:
        raise SettingError("momentum", momentum, "a number in [0, 1)")
    if isinstance(overshoot, (int, float)) and not 1 < overshoot < 2:
        raise SettingError("overshoot", overshoot, "a number in (1, 2)")
