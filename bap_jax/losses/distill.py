"""Self-distillation: the network keeps the predictions of a frozen one, and needs neither labels nor adversarial examples."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.losses._common import correct
from bap_jax.mathematics.objectives import kl_divergence
from bap_jax.types import Adversarial, Apply, Array, Batch, Loss, ModelState, Params, RunInfo


class Teacher(NamedTuple):
    """A frozen network."""

    params: Params
    model_state: ModelState


class DistillState(NamedTuple):
    """The teacher, and the factor of its divergence; a leaf, so that a sweep may batch it."""

    teacher: Teacher
    alpha: Array  # float32 scalar


def distill(apply: Apply, *, alpha: float = 10.0, temperature: float = 30.0, teacher: str = "start") -> Loss:
    """``α · T² · KL(p ‖ q) / K`` on clean images, a mean over the batch: p of the teacher, q of the network, both softmax(z / T).

    The loss of PwoA's ADMM phase. The mean is taken over classes too, as its code does. Only the clean images are passed through
    the network; with the budget ``none`` no adversarial example is made.

    Args:
      apply: of the model; the teacher computes with it in evaluation mode.
      alpha: α, at least 0.
      temperature: T > 0.
      teacher: which of ``RunInfo.networks``: ``"start"``, from which the run began, or a finished phase.

    Returns:
      A :class:`bap_jax.types.Loss` whose state is a :class:`DistillState`. Its metrics: ``distillation`` (without α) and
      ``clean_accuracy``.

    Raises:
      SettingError: a number outside its range; on ``init``, a teacher that is not among the networks.

    Example:
      >>> import jax.numpy as jnp
      >>> divergence = distillation(jnp.array([[30.0, 0.0]]), jnp.array([[0.0, 0.0]]), temperature=30.0)
      >>> round(float(divergence[0]), 2)  # 900 · KL([.731, .269] ‖ [.5, .5]) / 2
      49.92

    References:
      Jian et al. 2022, "Pruning Adversarially Robust Neural Networks without Adversarial Examples" (neu-spiral/PwoA).
    """
    check_distillation(alpha, temperature)

    def value(forward, batch: Batch, adversarial: Adversarial, state: DistillState, *, step, mean, gather):
        (outputs,) = forward(batch.images)
        taught = teacher_logits(apply, state.teacher, batch.images)
        divergence = mean(distillation(taught, outputs.logits, temperature=temperature), batch.weight)
        metrics = {"distillation": divergence, "clean_accuracy": mean(correct(outputs.logits, batch.labels), batch.weight)}
        return state.alpha * divergence, metrics

    def init(params: Params, model_state: ModelState, info: RunInfo) -> DistillState:
        return DistillState(teacher_of(info, teacher), jnp.float32(alpha))

    return Loss(init, value)


def distillation(teacher: Array, student: Array, *, temperature: float) -> Array:
    """``T² · KL(softmax(teacher / T) ‖ softmax(student / T)) / K`` of logits [B, K] each, per example [B]."""
    divergence = kl_divergence(teacher / temperature, student / temperature)
    return temperature**2 / student.shape[-1] * divergence


def teacher_logits(apply: Apply, teacher: Teacher, images: Array) -> Array:
    """[B, K] what the teacher says, in evaluation mode, without gradient."""
    return jax.lax.stop_gradient(apply(teacher.params, teacher.model_state, images, train=False)[0].logits)


def teacher_of(info: RunInfo, name: str) -> Teacher:
    """The network of that name.

    Raises:
      SettingError: the phase has none of that name.
    """
    if name not in info.networks:
        has = ", ".join(sorted(info.networks)) or "none: start from a trained network, or pretrain first"
        raise SettingError("teacher", name, f"one of the networks that this phase knows: {has}")
    network = info.networks[name]
    return Teacher(network.params, network.model_state)


def check_distillation(alpha: float, temperature: float) -> None:
    """Raises SettingError unless the numbers of a distillation make sense."""
    if not 0 <= alpha < float("inf"):
        raise SettingError("alpha", alpha, "a finite number of at least 0")
    if not 0 < temperature < float("inf"):
        raise SettingError("temperature", temperature, "a positive number")
