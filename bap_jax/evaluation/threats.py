"""Attacks with their settings, as evaluation takes them.

The attacks made here compare equal when their settings do, so that evaluating again with newly made threats compiles nothing
anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bap_jax.attacks import deepfool, fgsm, pgd
from bap_jax.attacks.pgd import Objective
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import cross_entropy
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm, Threat


def pgd_threat(
    *,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    num_steps: int = 20,
    step_size: float | None = None,
    relative_step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    objective: Objective = cross_entropy,
    name: str | None = None,
) -> Threat:
    """Projected gradient descent that returns the latest adversarial iterate it met.

    Args:
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      num_steps: gradient steps.
      step_size: one step size for every ε, in the norm's units.
      relative_step_size: the step size as a multiple of ε; 2.5/num_steps unless ``step_size`` is given.
      random_start: begin at a random point of the ball.
      restarts: independent starts.
      objective: what is maximised.
      name: as results show it; by default e.g. ``pgd-20-linf``.

    Returns:
      Threat.

    Raises:
      SettingError: no steps, both step sizes given, or one that is not positive. The rest is checked by
        :func:`bap_jax.attacks.pgd`, when run.

    Example:
      >>> pgd_threat(num_steps=40, relative_step_size=0.1).name
      'pgd-40-linf'
    """
    if not isinstance(num_steps, int) or num_steps < 1:
        raise SettingError("num_steps", num_steps, "an integer ≥ 1")
    if step_size is not None and relative_step_size is not None:
        raise SettingError("relative_step_size", relative_step_size, "no value beside step_size")
    for setting, value in (("step_size", step_size), ("relative_step_size", relative_step_size)):
        if value is not None and not value > 0:
            raise SettingError(setting, value, "a positive number")
    relative = 2.5 / num_steps if relative_step_size is None else relative_step_size
    attack = _Pgd(norm, bounds, num_steps, step_size, relative, random_start, restarts, objective)
    default = f"pgd-{num_steps}-{norm}" + (f"-x{restarts}" if restarts > 1 else "")
    return Threat(name or default, norm, bounds, False, attack)


def fgsm_threat(
    *,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    objective: Objective = cross_entropy,
    name: str | None = None,
) -> Threat:
    """One gradient step of full length.

    Args:
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      objective: what is maximised.
      name: as results show it; by default e.g. ``fgsm-linf``.

    Returns:
      Threat.

    Example:
      >>> fgsm_threat(norm="l2").name
      'fgsm-l2'
    """
    return Threat(name or f"fgsm-{norm}", norm, bounds, False, _Fgsm(norm, bounds, objective))


def deepfool_threat(
    *,
    norm: Literal["l2", "linf"] = "l2",
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    num_candidates: int = 10,
    overshoot: float = 0.02,
    early_stop: bool = True,
    name: str | None = None,
) -> Threat:
    """DeepFool relative to the label, a minimal-norm attack: run once, its distances answer for every ε.

    Args:
      norm: ``l2`` or ``linf``.
      bounds: the box.
      num_steps: iterations at most.
      num_candidates: classes considered.
      overshoot: how much farther than the plane.
      early_stop: stop a batch when all of it is fooled, which saves most of the time and changes nothing.
      name: as results show it; by default e.g. ``deepfool-l2``.

    Returns:
      Threat with ``minimal=True``.

    Example:
      >>> deepfool_threat().minimal
      True
    """
    attack = _Deepfool(norm, bounds, num_steps, num_candidates, overshoot, early_stop)
    return Threat(name or f"deepfool-{norm}", norm, bounds, True, attack)


@dataclass(frozen=True)
class _Pgd:
    norm: Norm
    bounds: Bounds
    num_steps: int
    step_size: float | None
    relative_step_size: float
    random_start: bool
    restarts: int
    objective: Objective

    def __call__(self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon: Array) -> AttackResult:
        return pgd(
            logits_fn,
            keys,
            images,
            labels,
            epsilon=epsilon,
            step_size=self.relative_step_size * epsilon if self.step_size is None else self.step_size,
            num_steps=self.num_steps,
            norm=self.norm,
            bounds=self.bounds,
            random_start=self.random_start,
            restarts=self.restarts,
            objective=self.objective,
            keep="adversarial",
        )


@dataclass(frozen=True)
class _Fgsm:
    norm: Norm
    bounds: Bounds
    objective: Objective

    def __call__(self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon: Array) -> AttackResult:
        return fgsm(
            logits_fn, keys, images, labels, epsilon=epsilon, norm=self.norm, bounds=self.bounds, objective=self.objective
        )


@dataclass(frozen=True)
class _Deepfool:
    norm: Literal["l2", "linf"]
    bounds: Bounds
    num_steps: int
    num_candidates: int
    overshoot: float
    early_stop: bool

    def __call__(self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon: Array) -> AttackResult:
        return deepfool(
            logits_fn,
            keys,
            images,
            labels,
            norm=self.norm,
            bounds=self.bounds,
            num_steps=self.num_steps,
            num_candidates=self.num_candidates,
            overshoot=self.overshoot,
            early_stop=self.early_stop,
            reference="label",
        )
