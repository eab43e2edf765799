"""How often an attack asks the network: forward and backward passes per image, counted while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.evaluation.threats import named_threat
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm, Threat

_FEW, _MORE, _MOST = 2, 4, 7  # steps at which an attack is counted to learn what a step costs


class Passes(NamedTuple):
    """Per image of the batch."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Forward and backward passes together, AttackBench's queries."""
        return self.forward + self.backward


def count_passes(
    attack: Callable[[LogitsFn, Array, Array, Array], AttackResult],
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
) -> tuple[AttackResult, Passes]:
    """Runs an attack, and counts how many images went through the network forwards and backwards, divided by the batch's size.

    What a compiled program skips (a stage that all images are done with) does not count; a batch is as slow as its slowest image,
    and every image of it counts alike. A gradient is one pass of each kind.

    Args:
      attack: (logits_fn, keys, images, labels) to its result; compiled here, once per call.
      logits_fn: images [B, ...] to logits [B, K].
      keys: [B] typed keys.
      images: [B, ...].
      labels: [B].

    Returns:
      (AttackResult, Passes).

    Example:
      >>> import functools, jax.numpy as jnp
      >>> from bap_jax.attacks import pgd
      >>> attack = functools.partial(pgd, epsilon=0.1, num_steps=5)
      >>> keys, images = jax.random.split(jax.random.key(0), 2), jnp.full((2, 3), 0.5)
      >>> count_passes(attack, lambda x: x, keys, images, jnp.array([0, 1]))[1]
      Passes(forward=6.0, backward=5.0)

    References:
      Cinà et al. 2025, "AttackBench: Evaluating Gradient-based Attacks for Adversarial Examples" (the query budget).
    """
    counts = {"forward": 0, "backward": 0}

    def count(which: str, points: Array) -> None:
        def add(_: Any) -> None:
            counts[which] += points.shape[0]

        jax.debug.callback(add, jnp.ravel(points)[0])  # a value of the points: under vmap it is called for every copy of them

    @jax.custom_vjp
    def counted(points: Array) -> Array:
        count("forward", points)
        return points

    def forwards(points: Array) -> tuple[Array, None]:
        count("forward", points)
        return points, None

    def backwards(_: None, cotangent: Array) -> tuple[Array]:
        count("backward", cotangent)
        return (cotangent,)

    counted.defvjp(forwards, backwards)

    def network(points: Array, *rest: Any) -> Array:
        return logits_fn(counted(points), *rest)

    result = jax.block_until_ready(jax.jit(lambda *given: attack(network, *given))(keys, images, labels))
    jax.effects_barrier()
    return result, Passes(*(counts[which] / images.shape[0] for which in ("forward", "backward")))


def steps_within(budget: float, passes_of: Callable[[int], Passes]) -> int:
    """The most steps of an attack whose forward and backward passes stay within a budget.

    The attack is counted at three small numbers of steps; what a step costs follows from them.

    Args:
      budget: passes per image; AttackBench's is 2,000.
      passes_of: number of steps to the passes of the attack that makes so many, see :func:`count_passes`.

    Returns:
      The number of steps, ≥ 1.

    Raises:
      SettingError: a budget that one step exceeds, or an attack whose passes do not grow by the same number with every step
        (one that stops early).

    Example:
      >>> steps_within(2000, lambda steps: Passes(steps + 1, steps))
      999
    """
    few, more, most = (passes_of(steps).total for steps in (_FEW, _MORE, _MOST))
    each = (more - few) / (_MORE - _FEW)
    if each <= 0 or abs(few + each * (_MOST - _FEW) - most) > 1e-6:
        raise SettingError(
            "passes_of", [few, more, most], "passes that grow by the same number with every step, early_stop=False"
        )
    steps = math.floor((budget - few) / each + 1e-9) + _FEW
    if steps < 1:
        raise SettingError("budget", budget, f"at least {few - each * (_FEW - 1):g} passes, those of one step")
    return steps


def passes_of_threat(threat: Threat, logits_fn: LogitsFn, images: Array, labels: Array, key: Array) -> Passes:
    """Passes per image that a minimal-norm attack makes, see :func:`count_passes`.

    Example:
      >>> import jax.numpy as jnp
      >>> images, labels = jnp.full((2, 3), 0.5), jnp.array([0, 1])
      >>> passes_of_threat(named_threat("fmn", num_steps=10), lambda x: x, images, labels, jax.random.key(0))
      Passes(forward=11.0, backward=10.0)
    """
    keys = jax.random.split(key, images.shape[0])

    def attack(network: LogitsFn, keys: Array, images: Array, labels: Array) -> AttackResult:
        return threat.attack(network, keys, images, labels, jnp.float32(jnp.inf))

    return count_passes(attack, logits_fn, keys, images, labels)[1]


def steps_of_budget(
    name: str, norm: Norm, bounds: Bounds, image_shape: tuple[int, ...], num_classes: int, budget: float, **settings: Any
) -> int:
    """The most steps of a minimal-norm attack whose passes stay within a budget, whatever the network: see :func:`steps_within`.

    Args:
      name: of the attack, see :func:`bap_jax.named_threat`.
      norm: that it works in.
      bounds: the box.
      image_shape: of one image.
      num_classes: of the network, as FAB and DeepFool take a gradient of each.
      budget: passes per image.
      **settings: of the attack, without the number of steps.

    Raises:
      SettingError: as :func:`steps_within`.

    Example:
      >>> steps_of_budget("ddn", "l2", Bounds(), (4, 4, 1), 3, 2000)
      999
    """
    size = math.prod(image_shape)
    weights = jax.random.normal(jax.random.key(0), (size, num_classes)) / size  # any network will do: each step asks as often
    images = jax.random.uniform(jax.random.key(1), (2, *image_shape), minval=0.4, maxval=0.6)
    lower, upper = (jnp.broadcast_to(jnp.asarray(side, jnp.float32), images.shape) for side in bounds)
    images = jnp.where(jnp.isfinite(lower) & jnp.isfinite(upper), lower + images * (upper - lower), images)

    def network(points: Array) -> Array:
        return points.reshape(points.shape[0], -1) @ weights

    labels = jnp.argmax(network(images), axis=1)

    def passes(steps: int) -> Passes:
        threat = named_threat(name, norm=norm, bounds=bounds, num_steps=steps, **settings)
        return passes_of_threat(threat, network, images, labels, jax.random.key(2))

    return steps_within(budget, passes)
