"""Self-distillation with an information bottleneck on the features: robustness without adversarial examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.losses._common import correct, one_hot
from bap_jax.losses.distill import Teacher, check_distillation, distillation, teacher_logits, teacher_of
from bap_jax.mathematics.hsic import gaussian_kernel, linear_kernel, nhsic, normalized
from bap_jax.types import Adversarial, Apply, Array, Batch, Loss, ModelState, Params, RunInfo


class DistillHSICState(NamedTuple):
    """The teacher, and the factors; leaves, so that a sweep may batch them."""

    teacher: Teacher
    alpha: Array  # float32 scalar, of the distillation
    lambda_x: Array  # float32 scalar, of the dependence on the images
    lambda_y: Array  # float32 scalar, of the dependence on the labels


def distill_hsic(
    apply: Apply,
    *,
    alpha: float = 10.0,
    temperature: float = 30.0,
    lambda_x: float = 2e-4,
    lambda_y: float = 5e-5,
    sigma: float = 5.0,
    epsilon: float = 1e-5,
    taps: Sequence[str] | None = None,
    teacher: str = "start",
) -> Loss:
    """``α · L_KD + Σ_l [λx · nHSIC(Z_l, X) - λy · nHSIC(Z_l, Y)]``, the loss of PwoA's masked retraining.

    L_KD is :func:`bap_jax.losses.distill`'s; Z_l are the features that the network offers as taps, X the images, Y the one-hot
    labels, with Gaussian kernels for Z and X and a linear one for Y (:mod:`bap_jax.mathematics.hsic`). Labels enter here only:
    there is no cross-entropy. The kernels are those of the whole batch, also where it is spread over devices; it cannot be
    computed in parts.

    The defaults are those published for MNIST and LeNet. CIFAR-10: λx 2e-5, λy 1e-4, α 10; CIFAR-100: λx 5e-7, λy 2e-6, α 100.

    Args:
      apply: of the model; the teacher computes with it in evaluation mode.
      alpha: α, at least 0.
      temperature: T > 0, of the distillation.
      lambda_x: λx, at least 0.
      lambda_y: λy, at least 0.
      sigma: the width of the Gaussian kernels, > 0.
      epsilon: the regulariser of nHSIC, > 0.
      taps: their names, or None for all that the network offers: those of the paper for LeNet5, ResNets and WideResNets.
      teacher: see :func:`bap_jax.losses.distill`.

    Returns:
      A :class:`bap_jax.types.Loss` whose state is a :class:`DistillHSICState`. Its metrics: ``distillation``, ``hsic_images`` and
      ``hsic_labels`` (sums over taps), without their factors, and ``clean_accuracy``.

    Raises:
      SettingError: a number outside its range; on ``init``, a teacher that is not among the networks; on ``value``, a network
        without taps, or without one that is named.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> images, labels = jax.random.uniform(jax.random.key(0), (8, 3)), jnp.arange(8) % 2
      >>> features = {"z": labels[:, None]}
      >>> with_images, with_labels = jax.jit(bottleneck)(features, images, jnp.eye(2)[labels], jnp.ones(8))
      >>> round(float(with_labels), 2)  # features that are the labels: one centred direction, all of it shared
      1.0

    References:
      Jian et al. 2022, "Pruning Adversarially Robust Neural Networks without Adversarial Examples" (neu-spiral/PwoA).
    """
    check_distillation(alpha, temperature)
    for name, number in (("lambda_x", lambda_x), ("lambda_y", lambda_y)):
        if not 0 <= number < float("inf"):
            raise SettingError(name, number, "a finite number of at least 0")
    for name, number in (("sigma", sigma), ("epsilon", epsilon)):
        if not 0 < number < float("inf"):
            raise SettingError(name, number, "a positive number")

    def value(forward, batch: Batch, adversarial: Adversarial, state: DistillHSICState, *, step, mean, gather):
        (outputs,) = forward(batch.images)
        taught = teacher_logits(apply, state.teacher, batch.images)
        divergence = mean(distillation(taught, outputs.logits, temperature=temperature), batch.weight)
        features = {name: gather(tap) for name, tap in _chosen(outputs.taps, taps).items()}
        images, labels = gather(batch.images), gather(one_hot(outputs.logits, batch.labels))
        on_images, on_labels = bottleneck(features, images, labels, gather(batch.weight), sigma=sigma, epsilon=epsilon)
        metrics = {
            "distillation": divergence,
            "hsic_images": on_images,
            "hsic_labels": on_labels,
            "clean_accuracy": mean(correct(outputs.logits, batch.labels), batch.weight),
        }
        return state.alpha * divergence + state.lambda_x * on_images - state.lambda_y * on_labels, metrics

    def init(params: Params, model_state: ModelState, info: RunInfo) -> DistillHSICState:
        return DistillHSICState(teacher_of(info, teacher), *map(jnp.float32, (alpha, lambda_x, lambda_y)))

    return Loss(init, value, per_example_mean=False)


def bottleneck(
    features: Mapping[str, Array], images: Array, labels: Array, weight: Array, *, sigma: float = 5.0, epsilon: float = 1e-5
) -> tuple[Array, Array]:
    """``Σ_l nHSIC(Z_l, X)`` and ``Σ_l nHSIC(Z_l, Y)`` over a whole batch.

    Args:
      features: Z_l [B, ...] by name.
      images: X [B, ...].
      labels: Y [B, K], one-hot.
      weight: [B], 0 for padding.
      sigma: the width of the Gaussian kernels.
      epsilon: the regulariser.

    Returns:
      Two float32 scalars.
    """
    matrices = [gaussian_kernel(rows, sigma) for rows in (*features.values(), images)] + [linear_kernel(labels)]
    *inner, seen, wanted = jax.vmap(lambda kernel: normalized(kernel, weight, epsilon=epsilon))(jnp.stack(matrices))
    on_images = sum((nhsic(matrix, seen) for matrix in inner), jnp.float32(0.0))
    return on_images, sum((nhsic(matrix, wanted) for matrix in inner), jnp.float32(0.0))


def _chosen(offered: Mapping[str, Array], names: Sequence[str] | None) -> dict[str, Array]:
    if names is None:
        if not offered:
            raise SettingError("model", "no taps", "a network that offers its features: Outputs(logits, {name: features})")
        return dict(offered)
    for name in names:
        if name not in offered:
            raise SettingError("taps", name, f"one of those that the network offers: {', '.join(offered) or 'none'}")
    return {name: offered[name] for name in names}
