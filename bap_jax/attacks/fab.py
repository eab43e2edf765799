"""FAB: steps to the plane of the linearised boundary, drawn towards the image; the nearest adversarial point is kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import Give, admit, check_keys, check_steps
from bap_jax.attacks._nearest import Nearest, attack_result, keep_nearer, none_yet
from bap_jax.errors import SettingError
from bap_jax.mathematics.hyperplanes import step_to_plane
from bap_jax.mathematics.norms import dual_norm, normalize, per_example_norm
from bap_jax.mathematics.objectives import margin_loss, misclassified
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn

FabNorm = Literal["linf", "l2", "l1"]
_MANY_CLASSES = 100


def fab(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    norm: FabNorm = "linf",
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    restarts: int = 1,
    first_restart: int | Array = 0,
    epsilon: float | Array | None = None,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> AttackResult:
    """The fast adaptive boundary attack: a small perturbation that changes the class, without a budget.

    At x, with f_k = z_k − z_y and w_k = ∇f_k, the boundary is taken to be the plane f_l + ⟨w_l, x' − x⟩ = 0 of the class l with
    the smallest |f_l|/(‖w_l‖_q + 1e-12). Let d₁ and d₂ be the shortest ways within the box from x and from the image x₀ to the
    plane (:func:`bap_jax.mathematics.hyperplanes.step_to_plane`), α = min(‖d₁‖/(‖d₁‖ + ‖d₂‖), α_max); then x ← Π_box((1 − α)·(x +
    η·d₁) + α·(x₀ + η·d₂)). If that point is misclassified it is kept where it is nearer than what was met before, and the next
    step starts at x₀ + β·(x − x₀).

    A step takes two forward passes and K − 1 backward ones, one for each plane; :func:`fab_targeted` takes one backward pass.

    What holds: rows do not influence each other; zero gradients give no NaN; more steps or restarts never find less.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; only derivatives with respect to the images are taken.
      keys: [B] typed keys, one per row; may be None where nothing is random: one restart, from the image.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers, the true classes.
      norm: ``linf``, ``l2`` or ``l1``: the norm that is kept small.
      bounds: the box; Bounds(-inf, inf) for none.
      num_steps: steps of every restart, ≥ 1.
      restarts: how often to start. Restart 0 starts at the image, all others at a random point whose distance is epsilon/2
        before it is clipped to the box.
      first_restart: the number of the first restart here, so that a run may be continued by another call; may be traced.
      epsilon: the radius that random starts refer to, a scalar or [B]; may be traced. Not a budget.
      alpha_max: the largest weight of the image's own way to the plane, in [0, 1].
      eta: how far beyond the plane to go, ≥ 1.
      beta: how much of the perturbation stays after a misclassified point, in (0, 1].

    Returns:
      AttackResult: the nearest adversarial point met, the image itself where there was none (``found`` false) or where the image
      is misclassified already; ``loss`` [num_steps, B] is max_{k≠y} z_k − z_y before each step, of the restart that met the
      point.

    Raises:
      SettingError: a shape, dtype or setting that cannot be, or random starts without epsilon.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> result = fab(linear, None, jnp.array([[0.5, 0.5]]), jnp.array([0]), norm="l2", num_steps=20, bounds=Bounds(-1.0, 1.0))
      >>> jnp.linalg.norm(result.images - 0.5).round(2), result.found  # the plane is 3.5 / 5 away
      (Array(0.7, dtype=float32), Array([ True], dtype=bool))

    References:
      Croce and Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack", algorithm 1, without
      its final search; random starts as in fra31/auto-attack.
    """
    settings = _Settings(norm, bounds, num_steps, restarts, first_restart, epsilon, alpha_max, eta, beta)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    _check(keys, images, settings)

    def nearest_plane(current: Array, _: Array) -> _Plane:
        logits, pull = jax.vjp(logits_fn, current)
        _warn_of_cost(logits.shape[1])

        def visit(best: tuple[Array, Array, Array], number: Array) -> tuple[tuple[Array, Array, Array], None]:
            """The planes one after the other: on a CPU faster than all at once, and without K gradients in memory."""
            ratio, gap, normal = best
            towards = _towards(logits, number + (number >= labels), labels)
            new_gap, new_normal = jnp.sum(towards * logits, axis=1), pull(towards)[0]
            new_ratio = jnp.abs(new_gap) / (per_example_norm(new_normal, dual_norm(norm)) + 1e-12)
            nearer = new_ratio < ratio
            best = jnp.where(nearer, new_ratio, ratio), jnp.where(nearer, new_gap, gap), choose(nearer, new_normal, normal)
            return best, None

        nothing = jnp.zeros_like(logits[:, 0])
        best = (nothing + jnp.inf, nothing, jnp.zeros_like(images))
        gap, normal = jax.lax.scan(visit, best, jnp.arange(logits.shape[1] - 1))[0][1:]
        return _Plane(logits, gap, normal)

    return _search(logits_fn, keys, images, labels, settings, nearest_plane, 1, 1, give)


def fab_targeted(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    norm: FabNorm = "linf",
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    num_targets: int = 9,
    first_target: int | Array = 1,
    restarts: int = 1,
    first_restart: int | Array = 0,
    epsilon: float | Array | None = None,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> AttackResult:
    """FAB-T: :func:`fab` towards one class after the other, with one gradient per step.

    The plane is always that of z_t − z_y, for t the clean logits' second largest, third largest and so on, each target starting
    anew. A point counts whatever class it is taken for, if only it is not the label. With many classes this is much cheaper than
    fab, which takes a gradient of every class.

    Args:
      logits_fn: as for :func:`fab`.
      keys: as for :func:`fab`.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the *true* classes.
      norm: as for :func:`fab`.
      bounds: as for :func:`fab`.
      num_steps: steps towards every target, ≥ 1.
      num_targets: how many targets; no more than there are classes left are taken.
      first_target: the rank of the first target: 1 for the clean logits' second largest; may be traced. A traced rank beyond the
        last class means the last.
      restarts: as for :func:`fab`, of every target.
      first_restart: as for :func:`fab`.
      epsilon: as for :func:`fab`.
      alpha_max: as for :func:`fab`.
      eta: as for :func:`fab`.
      beta: as for :func:`fab`.

    Returns:
      AttackResult, as from :func:`fab`: the nearest point of all targets.

    Raises:
      SettingError: as :func:`fab`; a target's rank that no class has.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> fab_targeted(linear, None, jnp.array([[0.5, 0.5]]), jnp.array([0]), bounds=Bounds(-1.0, 1.0), num_steps=20).found
      Array([ True], dtype=bool)

    References:
      Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
      section 4.
    """
    settings = _Settings(norm, bounds, num_steps, restarts, first_restart, epsilon, alpha_max, eta, beta)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    _check(keys, images, settings)
    check_steps("num_targets", num_targets)
    if isinstance(first_target, int) and first_target < 1:
        raise SettingError("first_target", first_target, "a rank ≥ 1: that of the largest logit is 0")

    def plane(current: Array, target: Array) -> _Plane:
        logits, pull = jax.vjp(logits_fn, current)
        towards = _towards(logits, target, labels)
        return _Plane(logits, jnp.sum(towards * logits, axis=1), pull(towards)[0])

    return _search(logits_fn, keys, images, labels, settings, plane, num_targets, first_target, give)


class _Settings(NamedTuple):
    norm: FabNorm
    bounds: Bounds
    num_steps: int
    restarts: int
    first_restart: int | Array
    epsilon: float | Array | None
    alpha_max: float
    eta: float
    beta: float

    @property
    def random(self) -> bool:
        return self.restarts > 1 or not (isinstance(self.first_restart, int) and self.first_restart == 0)


class _Plane(NamedTuple):
    logits: Array  # [B, K] at the point
    gap: Array  # [B] the linear function's value there
    normal: Array  # [B, ...] its gradient


class _Found(NamedTuple):
    nearest: Nearest
    losses: Array  # [num_steps, B]


def _search(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    settings: _Settings,
    plane: Callable[[Array, Array], _Plane],
    num_targets: int,
    first_target: int | Array,
    give: Give,
) -> AttackResult:
    norm, bounds = settings.norm, settings.bounds
    clean = logits_fn(images)
    num_classes = clean.shape[1]
    if isinstance(first_target, int) and first_target >= num_classes:
        raise SettingError("first_target", first_target, f"a rank below {num_classes}, the number of classes")
    num_targets = min(num_targets, num_classes - (first_target if isinstance(first_target, int) else 1))
    _, ranked = jax.lax.top_k(clean, num_classes)

    def iterate(carry: tuple[Array, Nearest], _: None, target: Array) -> tuple[tuple[Array, Nearest], Array]:
        current, nearest = carry
        logits, gap, normal = plane(current, target)
        back = jnp.sum((normal * (images - current)).reshape(images.shape[0], -1), axis=1)
        ways = [step_to_plane(current, normal, gap, norm, bounds), step_to_plane(images, normal, gap + back, norm, bounds)]
        own, clean_way = (jnp.maximum(per_example_norm(way, norm), 1e-8) for way in ways)
        alpha = expand(jnp.minimum(own / (own + clean_way), settings.alpha_max), images)
        moved = (1 - alpha) * (current + settings.eta * ways[0]) + alpha * (images + settings.eta * ways[1])
        moved = clip_to_bounds(moved, bounds)
        hit = misclassified(logits_fn(moved), labels)
        nearest = keep_nearer(nearest, hit, moved, per_example_norm(moved - images, norm))
        current = choose(hit, images + settings.beta * (moved - images), moved)
        return (current, nearest), margin_loss(logits, labels)

    def run(before: _Found, number: int | Array) -> _Found:
        restart, rank = settings.first_restart + number // num_targets, first_target + number % num_targets
        target = jax.lax.dynamic_index_in_dim(ranked, jnp.minimum(rank, num_classes - 1), axis=1, keepdims=False)
        start = images
        if settings.random and keys is not None and settings.epsilon is not None:
            moved = images + expand(settings.epsilon, images) / 2 * _directions(keys, restart, rank, images, norm)
            start = jnp.where(jnp.asarray(restart) == 0, images, clip_to_bounds(moved, bounds))
        (_, nearest), losses = jax.lax.scan(
            lambda carry, nothing: iterate(carry, nothing, target), (start, before.nearest), None, length=settings.num_steps
        )
        nearer = (nearest.distance < before.nearest.distance) | (jnp.asarray(number) == 0)
        return _Found(nearest, jnp.where(nearer[None, :], losses, before.losses))

    wrong = misclassified(clean, labels)
    nearest = keep_nearer(none_yet(images), wrong, images, jnp.zeros_like(images, shape=labels.shape))
    begin = _Found(nearest, jnp.zeros_like(clean, shape=(settings.num_steps, *labels.shape)))
    count = settings.restarts * num_targets
    if count == 1:
        found = run(begin, 0)
    else:
        found, _ = jax.lax.scan(lambda before, number: (run(before, number), None), begin, jnp.arange(count))
    return attack_result(found.nearest, found.losses, give)


def _warn_of_cost(num_classes: int) -> None:
    if num_classes > _MANY_CLASSES:
        warnings.warn(
            f"fab takes {num_classes - 1} backward passes per step, one for each other class; fab_targeted (fab-t) takes one",
            stacklevel=2,
        )


def _towards(logits: Array, rivals: Array, labels: Array) -> Array:
    """What z_rival − z_label is made of, [B, K]."""
    classes = jnp.arange(logits.shape[1])[None, :]
    return (classes == rivals[:, None]).astype(logits.dtype) - (classes == labels[:, None]).astype(logits.dtype)


def _directions(keys: Array, restart: int | Array, rank: int | Array, images: Array, norm: FabNorm) -> Array:
    """One random direction of norm 1 for every row."""
    shape, dtype = images.shape[1:], images.dtype

    def draw(key: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, restart), rank)
        return jax.random.uniform(key, shape, dtype, -1, 1) if norm == "linf" else jax.random.normal(key, shape, dtype)

    return normalize(jax.vmap(draw)(keys), norm)


def _check(keys: Array | None, images: Array, settings: _Settings) -> None:
    dual_norm(settings.norm)  # refuses other norms
    check_steps("num_steps", settings.num_steps)
    check_steps("restarts", settings.restarts)
    if isinstance(settings.first_restart, int) and settings.first_restart < 0:
        raise SettingError("first_restart", settings.first_restart, "an integer ≥ 0")
    if settings.random:
        check_keys(keys, images)
        if settings.epsilon is None:
            raise SettingError("epsilon", None, "a radius: all restarts but the first start at random within epsilon/2")
    for name, low, high in (("alpha_max", 0.0, 1.0), ("eta", 1.0, math.inf), ("beta", 0.0, 1.0)):
        value = getattr(settings, name)
        if not (math.isfinite(value) and low <= value <= high) or (name == "beta" and value == 0):
            raise SettingError(name, value, f"a number in [{low}, {high}]" + (", not 0" if name == "beta" else ""))
