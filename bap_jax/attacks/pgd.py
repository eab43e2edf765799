"""Projected gradient descent: the attack of training and of every first evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit, check_keys, check_top_k
from bap_jax.attacks._region import limit_to_region
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import steepest_direction
from bap_jax.mathematics.objectives import cross_entropy, successful
from bap_jax.mathematics.per_example import choose, expand, num_features
from bap_jax.mathematics.projections import check_radius, clip_to_bounds, project_ball, uniform_in_ball
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm

Objective = Callable[[Array, Array], Array]  # (logits [B, K], labels [B]) -> [B]


def pgd(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    num_steps: int,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    step_size: float | Array | None = None,
    random_start: bool = True,
    restarts: int = 1,
    targeted: bool = False,
    objective: Objective = cross_entropy,
    keep: Literal["last", "adversarial"] = "last",
    l1_share: float = 0.01,
    top_k: int = 1,
    region: Array | None = None,
) -> AttackResult:
    """Projected gradient ascent on a loss of the label, inside a ball around each image and inside the box.

    x ← Π_box(x₀ + Π_ball(x + α·d − x₀)), d = sgn(g) for L∞, g/‖g‖₂ for L2 and RMS, and for L1 the signs of the features with the
    largest |g| over their number; features at a wall of the box that would move outwards take no part in an L1 step.

    What holds: rows do not influence each other (given a ``logits_fn`` of which that is true), so padding and sharding change
    nothing; with ε = 0 the images come back exactly; zero gradients give no NaN; no gradient flows through the result. The
    forward pass that judges the final point stands after the loop, so that under ``jit`` it costs nothing where ``found`` is not
    used (``restarts=1``, ``keep="last"``).

    Args:
      logits_fn: images [B, ...] to logits [B, K]; only derivatives with respect to the images are taken.
      keys: [B] typed keys, one per row; may be None without a random start.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      num_steps: gradient steps, ≥ 1.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      step_size: α in the norm's units, a scalar or [B]; default 2.5·ε/num_steps.
      random_start: begin at a point uniform in the ball (then clipped to the box) instead of at the image.
      restarts: how often to start anew. Each example gets the restart whose point is adversarial, among equals the one with the
        better objective at its last iterate.
      targeted: make the network answer ``labels`` instead of anything else.
      objective: (logits, labels) to [B], larger = the label less believed; maximised, or minimised if ``targeted``.
      keep: ``"last"`` returns the last iterate (as in training); ``"adversarial"`` the latest adversarial iterate where there
        was one (what an evaluation wants).
      l1_share: L1 only: the share of features that a step moves, at least one feature.
      top_k: the label has to be among the k largest logits to count as recognised; for k > 1
        :func:`bap_jax.mathematics.top_k_margin_loss` is the objective that aims at it.
      region: bool, True where a feature may change, with the axes of ``images``, each as long or of length 1: patches,
        backgrounds. One compiled program serves every region. None for everywhere.

    Returns:
      AttackResult: ``found`` is true where any iterate, the start included, was adversarial; ``loss`` [num_steps, B] is the
        objective before each step, of the chosen restart.

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, -1.0], [1.0, -1.0]])
      >>> images, labels = jnp.array([[0.75, 0.5]]), jnp.array([0])
      >>> pgd(linear, None, images, labels, epsilon=0.25, num_steps=5, bounds=Bounds(-1.0, 1.0), random_start=False).images
      Array([[0.5 , 0.25]], dtype=float32)

    References:
      Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks"; the L1 step: Tramèr and Boneh 2019,
      "Adversarial Training and Robustness for Multiple Perturbations" (sparse L1 descent, as in cleverhans with
      grad_sparsity=99).
    """
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    _check(keys, images, step_size, num_steps, random_start, restarts, keep, l1_share)
    step = 2.5 * jnp.asarray(epsilon, images.dtype) / num_steps if step_size is None else step_size
    check_top_k(top_k, targeted)
    mask, bounds = limit_to_region(region, images, bounds)
    sign = -1 if targeted else 1

    def adversarial(logits: Array) -> Array:
        return successful(logits, labels, targeted=targeted, top_k=top_k)

    def ascend(current: Array, gradient: Array) -> Array:
        gradient = sign * gradient if mask is None else jnp.where(mask, sign * gradient, 0)
        if norm == "l1":
            gradient = jnp.where(clip_to_bounds(current + jnp.sign(gradient), bounds) == current, 0, gradient)
        share = max(1, math.ceil(l1_share * num_features(images)))
        moved = current + expand(step, images) * steepest_direction(gradient, norm, num_features=share)
        return clip_to_bounds(images + project_ball(moved - images, epsilon, norm), bounds)

    def value(current: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = logits_fn(current)
        losses = objective(logits, labels)
        return jnp.sum(losses), (losses, adversarial(logits))

    def iterate(carry: _Walk, _: None) -> tuple[_Walk, Array]:
        gradient, (losses, hit) = jax.grad(value, has_aux=True)(carry.current)
        carry = _remember(carry, hit, keep)
        return carry._replace(current=ascend(carry.current, gradient)), losses

    def run(restart: int | Array) -> _Restart:
        start = images
        if random_start and keys is not None:
            start = clip_to_bounds(images + _noise(keys, restart, images, epsilon, norm), bounds)
        walk, losses = jax.lax.scan(iterate, _Walk(start, start, labels != labels), None, length=num_steps)
        logits = logits_fn(walk.current)
        hit = adversarial(logits)
        found = walk.found | hit
        if keep == "last":
            return _Restart(walk.current, found, hit, sign * objective(logits, labels), losses)
        point = choose(hit | ~walk.found, walk.current, walk.kept)
        return _Restart(point, found, found, sign * objective(logits, labels), losses)

    best = run(0) if restarts == 1 else _best(jax.lax.map(run, jnp.arange(restarts)))
    return give(best.images, best.found, best.losses)


class _Walk(NamedTuple):
    current: Array  # [B, ...]
    kept: Array  # [B, ...] the latest adversarial iterate
    found: Array  # [B]


class _Restart(NamedTuple):
    images: Array  # [B, ...] the point this restart returns
    found: Array  # [B] some iterate was adversarial
    adversarial: Array  # [B] the point is
    score: Array  # [B] the objective at the last iterate, larger is better
    losses: Array  # [num_steps, B]


def _remember(walk: _Walk, hit: Array, keep: str) -> _Walk:
    kept = walk.kept if keep == "last" else choose(hit, walk.current, walk.kept)
    return walk._replace(kept=kept, found=walk.found | hit)


def _best(runs: _Restart) -> _Restart:
    best, *others = (jax.tree.map(lambda leaf, r=r: leaf[r], runs) for r in range(runs.found.shape[0]))
    for other in others:
        best = _better(best, other)
    return best


def _better(old: _Restart, new: _Restart) -> _Restart:
    wins = (new.adversarial & ~old.adversarial) | ((new.adversarial == old.adversarial) & (new.score > old.score))
    images = choose(wins, new.images, old.images)
    return _Restart(
        images,
        old.found | new.found,
        old.adversarial | new.adversarial,
        jnp.where(wins, new.score, old.score),
        jnp.where(wins[None, :], new.losses, old.losses),
    )


def _noise(keys: Array, restart: int | Array, images: Array, epsilon: float | Array, norm: Norm) -> Array:
    def draw(key: Array) -> Array:
        return uniform_in_ball(jax.random.fold_in(key, restart), images.shape[1:], norm, images.dtype)

    unit = jax.vmap(draw)(keys)
    return expand(epsilon, images) * unit


def _check(
    keys: Array | None,
    images: Array,
    step_size: float | Array | None,
    num_steps: int,
    random_start: bool,
    restarts: int,
    keep: str,
    l1_share: float,
) -> None:
    check_radius("step_size", step_size)
    for name, count in (("num_steps", num_steps), ("restarts", restarts)):
        if not isinstance(count, int) or count < 1:
            raise SettingError(name, count, "an integer ≥ 1")
    if keep not in ("last", "adversarial"):
        raise SettingError("keep", keep, "'last' or 'adversarial'")
    if not 0 < l1_share <= 1:
        raise SettingError("l1_share", l1_share, "a share of the features in (0, 1]")
    if restarts > 1 and not random_start:
        raise SettingError("restarts", restarts, "1 without a random start: every restart would be the same")
    if random_start:
        check_keys(keys, images)
