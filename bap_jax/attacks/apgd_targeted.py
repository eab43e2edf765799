"""APGD on the targeted DLR loss, one wrong class after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from bap_jax.attacks._apgd_ascent import (
    ApgdNorm,
    _ascend,
    _Ascent,
    _check,
    _clean_logits,
    _first_success,
    _fold,
    _Goal,
    _nothing,
    _Outcome,
)
from bap_jax.attacks._inputs import admit, check_count
from bap_jax.attacks._region import limit_to_region
from bap_jax.errors import SettingError
from bap_jax.mathematics.norms import dual_norm, per_example_norm
from bap_jax.mathematics.objectives import dlr_targeted, misclassified
from bap_jax.mathematics.per_example import expand
from bap_jax.types import Array, AttackResult, Bounds

Ranking = Literal["logits", "malt"]


def apgd_targeted(
    logits_fn: Callable[..., Array],
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    norm: ApgdNorm = "linf",
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    num_targets: int = 9,
    first_target: int | Array = 1,
    rho: float = 0.75,
    eot_samples: int = 1,
    random_logits: bool = False,
    start: Array | None = None,
    large_epsilon_schedule: bool = False,
    ranking: Ranking = "logits",
    region: Array | None = None,
) -> AttackResult:
    """APGD towards one wrong class after the other, on the targeted DLR loss; any misclassification counts.

    The targets of an example are its wrong classes by descending logit of the image itself: rank 1 is the largest. With
    ``ranking="malt"`` they are ordered by how far away they would be if the network were linear around the image, the nearest
    first: by (z_y − z_t)/‖∇(z_y − z_t)‖_q, q the dual norm. That costs one forward and K backward passes, and changes
    something only where fewer targets are tried than there are. As :func:`apgd` otherwise; each run folds its target's rank into
    the keys. An image that is misclassified as it is comes back.

    Args:
      logits_fn: as for :func:`apgd`.
      keys: [B] typed keys, or None where nothing is random.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers, the *true* classes.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      num_steps: gradient steps towards each target, ≥ 1.
      num_targets: how many ranks are tried; never more than K − 1.
      first_target: the first rank, from 1; may be traced: rank r alone is ``first_target=r, num_targets=1``. Ranks beyond
        K − 1 are left out.
      rho: as for :func:`apgd`.
      eot_samples: as for :func:`apgd`.
      random_logits: as for :func:`apgd`.
      start: as for :func:`apgd`, the same for every target.
      large_epsilon_schedule: as for :func:`apgd`.
      ranking: the order of the targets, ``"logits"`` or ``"malt"``. A class whose gradient is zero comes last in the latter.
      region: as for :func:`apgd`.

    Returns:
      AttackResult: ``found`` where the image itself or a point met was misclassified; else the point nearest to success, that
        of the best objective of all targets. ``loss`` [num_steps, B] is the objective towards the target of the run that is
        returned, and 0 where the image itself is.

    Raises:
      SettingError: a shape, dtype or setting that cannot be; fewer than four classes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[2.0, -1.0, 0.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
      >>> images, labels = jnp.array([[0.75, 0.5]]), jnp.array([0])
      >>> box, keys = Bounds(-1.0, 1.0), jax.random.split(jax.random.key(0), 1)
      >>> [apgd_targeted(linear, keys, images, labels, epsilon=e, num_steps=9, bounds=box).found for e in (0.43, 0.44)]
      [Array([False], dtype=bool), Array([ True], dtype=bool)]

    References:
      Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
      section 5; Melamed et al. 2024, "MALT Powers Up Adversarial Attacks".
    """
    if ranking not in get_args(Ranking):
        raise SettingError("ranking", ranking, "'logits' or 'malt'")
    if ranking == "malt" and random_logits:
        raise SettingError("ranking", ranking, "'logits' for a network with random logits")
    ascent = _Ascent(norm, bounds, num_steps, rho, eot_samples, random_logits, large_epsilon_schedule)
    given = images
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    _check(ascent, keys, given, start)
    mask, box = limit_to_region(region, images, bounds)
    ascent = ascent._replace(bounds=box, region=mask)
    start = None if start is None else jnp.asarray(start, images.dtype)
    expand(epsilon, images)  # refuses other shapes
    check_count("num_targets", num_targets, 1)
    check_count("first_target", first_target, 1)
    clean = _clean_logits(ascent, logits_fn, keys, images)
    num_wrong = clean.shape[-1] - 1
    if isinstance(first_target, int) and first_target > num_wrong:
        raise SettingError("first_target", first_target, f"at most {num_wrong}, the number of wrong classes")
    nearness = clean if ranking == "logits" else -_linear_distance(logits_fn, images, labels, norm, mask)
    wrong = jnp.where(jnp.arange(num_wrong + 1)[None, :] == labels[:, None], -jnp.inf, nearness)
    _, ranked = jax.lax.top_k(wrong, num_wrong)  # [B, K - 1]

    def run(rank: Array) -> _Outcome:
        targets = jax.lax.dynamic_index_in_dim(ranked, jnp.minimum(rank, num_wrong) - 1, axis=1, keepdims=False)
        goal = _Goal(lambda logits: dlr_targeted(logits, labels, targets), lambda logits: misclassified(logits, labels))
        return _ascend(ascent, goal, logits_fn, _fold(keys, rank), images, epsilon, start)

    ranks = first_target + jnp.arange(min(num_targets, num_wrong))
    best = _first_success(run, ranks, _nothing(images, misclassified(clean, labels), num_steps), last=num_wrong)
    return give(best.images, best.found, best.losses)


def _linear_distance(logits_fn: Callable[..., Array], images: Array, labels: Array, norm: ApgdNorm, mask: Array | None) -> Array:
    """[B, K]: how far each class would be if the network were linear, where features may change; inf without a gradient."""
    logits, pull = jax.vjp(logits_fn, images)
    num_classes = logits.shape[-1]
    own = jax.nn.one_hot(labels, num_classes, dtype=logits.dtype)

    def distance(target: Array) -> Array:
        difference = own - jax.nn.one_hot(target, num_classes, dtype=logits.dtype)[None, :]
        (gradient,) = pull(difference)
        gradient = gradient if mask is None else jnp.where(mask, gradient, 0)
        slope = per_example_norm(gradient, dual_norm(norm))
        gap = jnp.sum(difference * logits, axis=-1)
        return jnp.where(slope > 0, gap / jnp.where(slope > 0, slope, 1), jnp.inf)

    return jax.lax.map(distance, jnp.arange(num_classes)).T
