"""DeepFool: repeated steps to the nearest plane of the linearised network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from bap_jax.attacks._inputs import admit
from bap_jax.errors import SettingError
from bap_jax.inputs import require_labels
from bap_jax.mathematics.norms import dual_norm, per_example_norm
from bap_jax.mathematics.objectives import misclassified
from bap_jax.mathematics.per_example import choose, expand
from bap_jax.mathematics.projections import clip_to_bounds
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn


def deepfool(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    norm: Literal["l2", "linf"] = "l2",
    num_steps: int = 50,
    num_candidates: int = 10,
    overshoot: float = 0.02,
    overshoot_in_iterate: bool = True,
    reference: Literal["prediction", "label"] = "prediction",
    bounds: Bounds = Bounds(),
    margin_slack: float = 0.0,
    distance_slack: float = 1e-4,
    early_stop: bool = False,
) -> AttackResult:
    """A small perturbation that changes the class, untargeted and without a budget.

    With the reference class 0 and candidates k: f_k = z_k − z_0, w_k = ∇f_k, d_k = (|f_k| + margin_slack)/(‖w_k‖_q + 1e-8); the
    step for l = argmin d_k is r = (d_l + distance_slack)·u, u = w_l/(‖w_l‖₂ + 1e-8) for L2 (q = 2) and sgn(w_l) for L∞ (q = 1).
    Steps add up to r_tot; the network is linearised at Π_box(x₀ + r_tot), or at Π_box(x₀ + (1 + overshoot)·r_tot) if
    ``overshoot_in_iterate``; the result is Π_box(x₀ + (1 + overshoot)·r_tot). An example whose class has changed is left alone
    from then on.

    The defaults are the common form. The authors of blind adversarial pruning use another: see :func:`bap_deepfool`. The
    candidates are sorted anew in every iteration.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: ignored, nothing here is random; it stands here so that attacks are called alike.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers, the true classes.
      norm: ``l2`` or ``linf``: the norm that steps are short in.
      num_steps: iterations, ≥ 1.
      num_candidates: the classes with the largest logits that are considered, the reference among them; ≥ 2. At most K are.
      overshoot: how much farther than the plane, ≥ 0.
      overshoot_in_iterate: whether iterates overshoot too, or only the result.
      reference: the class to leave: the network's own ``"prediction"`` (an example that is wrong already is pushed away from
        its wrong class), or the ``"label"`` (an example that is wrong already stays as it is).
      bounds: the box; Bounds(-inf, inf) for none.
      margin_slack: added to |f_k|, in logit units.
      distance_slack: added to the length of every step, in the norm's units.
      early_stop: skip the remaining iterations once every example of the batch has changed class. Same result, less time on
        one device; where a batch is spread over devices it makes them talk in every iteration.

    Returns:
      AttackResult: ``found`` is true where the result's class differs from the reference; ``loss`` [num_steps, B] is
      max_{k≠0} z_k − z_0 before each step (0 for steps skipped by ``early_stop``).

    Raises:
      SettingError: a shape, dtype or setting that cannot be.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> result = deepfool(linear, None, jnp.array([[0.5, 0.5]]), jnp.array([0]), bounds=Bounds(-1.0, 1.0))
      >>> jnp.linalg.norm(result.images - 0.5).round(2), result.found  # the plane is 3.5 / 5 away
      (Array(0.71, dtype=float32), Array([ True], dtype=bool))

    References:
      Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep neural networks"; constants of the
      defaults as in foolbox.
    """
    _check(norm, num_steps, num_candidates, overshoot, reference, margin_slack, distance_slack)
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds)
    leave = jnp.argmax(logits_fn(images), axis=-1) if reference == "prediction" else labels

    def point(total: Array, factor: float) -> Array:
        return clip_to_bounds(images + factor * total, bounds)

    def advance(total: Array) -> tuple[Array, tuple[Array, Array]]:
        current = point(total, 1 + overshoot if overshoot_in_iterate else 1.0)
        logits, pull = jax.vjp(logits_fn, current)
        require_labels(labels, labels.shape[0], logits.shape[1])
        gaps, normals = _planes(logits, lambda cotangent: pull(cotangent)[0], leave, num_candidates)
        step = _shortest_step(gaps, normals, norm, margin_slack, distance_slack)
        active = jnp.argmax(logits, axis=-1) == leave
        return choose(active, total + step, total), (jnp.max(-gaps, axis=0), active)

    def iterate(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        total, active = carry
        if not early_stop:
            total, (loss, active) = advance(total)
            return (total, active), loss
        skip = (total, (jnp.zeros_like(images, shape=labels.shape), active))
        total, (loss, active) = jax.lax.cond(jnp.any(active), advance, lambda _: skip, total)
        return (total, active), loss

    (total, _), losses = jax.lax.scan(iterate, (jnp.zeros_like(images), labels == labels), None, length=num_steps)
    attacked = point(total, 1 + overshoot)
    return give(attacked, misclassified(logits_fn(attacked), leave), losses)


def bap_deepfool(
    logits_fn: LogitsFn,
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    num_steps: int = 5,
    num_candidates: int = 10,
    bounds: Bounds = Bounds(),
    early_stop: bool = False,
) -> AttackResult:
    """DeepFool-L2 as the authors of blind adversarial pruning train with it.

    Five iterations, ten candidates sorted anew each time, the network's own prediction as reference, d_k = (|f_k| +
    1e-5)/(‖w_k‖₂ + 1e-8), and an overshoot of 0.02 on the result only.

    Args:
      logits_fn: images [B, ...] to logits [B, K].
      keys: ignored.
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers; only their shape matters here.
      num_steps: iterations: 5 in their training, 100 in their evaluation.
      num_candidates: classes considered.
      bounds: the box.
      early_stop: as of :func:`deepfool`; the points are the same.

    Returns:
      AttackResult, as from :func:`deepfool`.

    Raises:
      SettingError: as :func:`deepfool`.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[3.0, 0.0], [4.0, 0.0]])
      >>> bap_deepfool(linear, None, jnp.array([[0.5, 0.5]]), jnp.array([0]), bounds=Bounds(-1.0, 1.0)).found
      Array([ True], dtype=bool)

    References:
      Xie et al. 2020, "Blind Adversarial Pruning: Balance Accuracy, Efficiency and Robustness"; repository Lixin-Qian/BAP.
    """
    return deepfool(
        logits_fn,
        keys,
        images,
        labels,
        num_steps=num_steps,
        num_candidates=num_candidates,
        overshoot_in_iterate=False,
        bounds=bounds,
        margin_slack=1e-5,
        distance_slack=0.0,
        early_stop=early_stop,
    )


def _planes(logits: Array, pull: Callable[[Array], Array], leave: Array, num_candidates: int) -> tuple[Array, Array]:
    """Each candidate's lag behind the reference, [C, B], and the image gradients towards it, [C, B, ...]."""
    num_classes = logits.shape[1]
    own = jnp.arange(num_classes)[None, :] == leave[:, None]  # [B, K]
    rivals, classes = jax.lax.top_k(jnp.where(own, -jnp.inf, logits), min(num_candidates, num_classes) - 1)
    gaps = jnp.sum(jnp.where(own, logits, 0), axis=1, keepdims=True) - rivals  # [B, C]
    towards = jax.nn.one_hot(classes.T, num_classes, dtype=logits.dtype) - own.astype(logits.dtype)[None]
    return gaps.T, jax.vmap(pull)(towards)


def _shortest_step(gaps: Array, normals: Array, norm: Literal["l2", "linf"], margin_slack: float, distance_slack: float) -> Array:
    sizes = jax.vmap(lambda normal: per_example_norm(normal, dual_norm(norm)))(normals)
    distances = (jnp.abs(gaps) + margin_slack) / (sizes + 1e-8)  # [C, B]
    nearest = jnp.argmin(distances, axis=0)  # [B]

    def pick(values: Array) -> Array:  # [C, B, ...] -> [B, ...]
        return jnp.take_along_axis(values, nearest.reshape(1, -1, *(1,) * (values.ndim - 2)), axis=0)[0]

    normal = pick(normals)
    unit = normal / expand(pick(sizes) + 1e-8, normal) if norm == "l2" else jnp.sign(normal)
    return expand(pick(distances) + distance_slack, normal) * unit


def _check(
    norm: str,
    num_steps: int,
    num_candidates: int,
    overshoot: float,
    reference: str,
    margin_slack: float,
    distance_slack: float,
) -> None:
    if norm not in ("l2", "linf"):
        raise SettingError("norm", norm, "'l2' or 'linf'")
    if not isinstance(num_steps, int) or num_steps < 1:
        raise SettingError("num_steps", num_steps, "an integer ≥ 1")
    if not isinstance(num_candidates, int) or num_candidates < 2:
        raise SettingError("num_candidates", num_candidates, "an integer ≥ 2, the reference class counted")
    if reference not in ("prediction", "label"):
        raise SettingError("reference", reference, "'prediction' or 'label'")
    for name, value in (("overshoot", overshoot), ("margin_slack", margin_slack), ("distance_slack", distance_slack)):
        if not (math.isfinite(value) and value >= 0):
            raise SettingError(name, value, "a finite number ≥ 0")
