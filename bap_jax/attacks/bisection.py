"""Bisection: any adversarial point, shrunk towards its image."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit, check_points, check_steps
from bap_jax.attacks._nearest import Nearest, attack_result, keep_nearer, none_yet
from bap_jax.errors import SettingError
from bap_jax.inputs import require_images
from bap_jax.mathematics.norms import per_example_norm
from bap_jax.mathematics.objectives import margin_loss, successful
from bap_jax.mathematics.per_example import expand
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.mathematics.top_k import project_l0
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn


def bisection(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    adversarial: Array,
    norm: Literal["linf", "l2", "l1", "l0"] = "l2",
    bounds: Bounds = Bounds(),
    num_steps: int = 20,
    targeted: bool = False,
) -> AttackResult:
    """Move adversarial points back towards their images as far as they stay adversarial.

    With Δ = x' − x and t in [0, 1], the points on the way are x + tΔ for L2; x + clip(Δ, ±t·‖Δ‖∞) for L∞; x + sgn(Δ)·max(|Δ| −
    (1 − t)·‖Δ‖∞, 0) for L1; and x plus the t·‖Δ‖₀ largest features of Δ for L0. Every step halves the interval between a t that
    is not adversarial and one that is. Whatever lies between two tries is not looked at, so this is an upper bound of the
    distance along the way, and exact where the network changes its answer once on it.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; no derivatives are taken.
      keys: ignored, nothing here is random; it stands here so that attacks are called alike.
      images: [B, ...] floats inside ``bounds``, the clean images.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      adversarial: [B, ...] the points to be shrunk, inside ``bounds``.
      norm: ``linf``, ``l2``, ``l1`` or ``l0`` (features, not pixels): the norm to be made small.
      bounds: the box.
      num_steps: halvings, ≥ 1: one forward pass each, and two before. L0 needs log₂ D of them.
      targeted: adversarial means that the network answers ``labels``.

    Returns:
      AttackResult: the nearest adversarial point met, never farther than the given one where that was adversarial; the image
      itself where the image is adversarial already, or where no point was (``found`` false). ``loss`` [num_steps, B] is the
      negative logit margin of the label at every trial.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, 0.0], [0.0, 0.0]])  # class 0 where the first feature is not negative
      >>> images, far = jnp.array([[0.5, 0.5]]), jnp.array([[-1.0, -1.0]])
      >>> bisection(linear, None, images, jnp.array([0]), adversarial=far, norm="linf", bounds=Bounds(-1.0, 1.0)).images.round(3)
      Array([[-0., -0.]], dtype=float32)

    References:
      The ways between the points as in the initialisation of FMN, Pintor et al. 2021, "Fast Minimum-norm Adversarial Attacks
      through Adaptive Norm Constraints".
    """
    given = images
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    _check(given, adversarial, norm, bounds, num_steps)
    adversarial = jnp.asarray(adversarial, images.dtype)
    delta = adversarial - images
    length = per_example_norm(delta, "l0" if norm == "l0" else "linf")

    def judge(points: Array) -> tuple[Array, Array]:
        logits = logits_fn(points)
        return margin_loss(logits, labels), successful(logits, labels, targeted=targeted)

    def between(share: Array) -> Array:  # shares [B] in the length's units
        if norm == "l0":
            moved = project_l0(delta, share)
        elif norm == "l1":
            cut = expand(length - share, delta)
            moved = delta - jnp.clip(delta, -cut, cut)
        elif norm == "linf":
            moved = jnp.clip(delta, -expand(share, delta), expand(share, delta))
        else:
            moved = delta * expand(share / jnp.where(length > 0, length, 1), delta)
        return clip_to_bounds(images + moved, bounds)

    def halve(search: _Search, _: None) -> tuple[_Search, Array]:
        middle = (search.low + search.high) / 2
        if norm == "l0":
            middle = jnp.floor(middle)
        points = between(middle)
        losses, hit = judge(points)
        nearest = keep_nearer(search.nearest, hit, points, per_example_norm(points - images, norm))
        return _Search(jnp.where(hit, search.low, middle), jnp.where(hit, middle, search.high), nearest), losses

    nearest = none_yet(images)
    for points in (adversarial, images):
        _, hit = judge(points)
        nearest = keep_nearer(nearest, hit, points, per_example_norm(points - images, norm))
    search, losses = jax.lax.scan(halve, _Search(0 * length, length, nearest), None, length=num_steps)
    return attack_result(search.nearest, losses, give)


class _Search(NamedTuple):
    low: Array  # [B] a share of the way that is not adversarial
    high: Array  # [B] one that is
    nearest: Nearest


def _check(images: Array, adversarial: Array, norm: str, bounds: Bounds, num_steps: int) -> None:
    check_points("adversarial", adversarial, images)
    require_images(adversarial, bounds, "adversarial")
    if norm not in ("linf", "l2", "l1", "l0"):
        raise SettingError("norm", norm, "one of linf, l2, l1, l0")
    check_steps("num_steps", num_steps)
