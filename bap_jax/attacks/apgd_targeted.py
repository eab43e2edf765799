"""APGD on the targeted DLR loss, one wrong class after the other."""

from __future__ import annotations

from collections.abc import Callable

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
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import dlr_targeted, misclassified
from bap_jax.mathematics.per_example import expand
from bap_jax.types import Array, AttackResult, Bounds


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
) -> AttackResult:
    """APGD towards one wrong class after the other, on the targeted DLR loss; any misclassification counts.

    The targets of an example are its wrong classes by descending logit of the image itself: rank 1 is the largest. As
    :func:`apgd` otherwise; each run folds its target's rank into the keys. An image that is misclassified as it is comes back.

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
      section 5.
    """
    ascent = _Ascent(norm, bounds, num_steps, rho, eot_samples, random_logits, large_epsilon_schedule)
    given = images
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    _check(ascent, keys, given, start)
    start = None if start is None else jnp.asarray(start, images.dtype)
    expand(epsilon, images)  # refuses other shapes
    check_count("num_targets", num_targets, 1)
    check_count("first_target", first_target, 1)
    clean = _clean_logits(ascent, logits_fn, keys, images)
    num_wrong = clean.shape[-1] - 1
    if isinstance(first_target, int) and first_target > num_wrong:
        raise SettingError("first_target", first_target, f"at most {num_wrong}, the number of wrong classes")
    wrong = jnp.where(jnp.arange(num_wrong + 1)[None, :] == labels[:, None], -jnp.inf, clean)
    _, ranked = jax.lax.top_k(wrong, num_wrong)  # [B, K - 1]

    def run(rank: Array) -> _Outcome:
        targets = jax.lax.dynamic_index_in_dim(ranked, jnp.minimum(rank, num_wrong) - 1, axis=1, keepdims=False)
        goal = _Goal(lambda logits: dlr_targeted(logits, labels, targets), lambda logits: misclassified(logits, labels))
        return _ascend(ascent, goal, logits_fn, _fold(keys, rank), images, epsilon, start)

    ranks = first_target + jnp.arange(min(num_targets, num_wrong))
    best = _first_success(run, ranks, _nothing(images, misclassified(clean, labels), num_steps), last=num_wrong)
    return give(best.images, best.found, best.losses)
