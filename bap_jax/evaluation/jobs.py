"""What an evaluation has to run: every attack or cascade at its budgets, by way of one network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bap_jax.errors import SettingError
from bap_jax.evaluation.bound import BoundAttack
from bap_jax.evaluation.cascade import Cascade, Stage, stage_of
from bap_jax.evaluation.compiled import Predict
from bap_jax.evaluation.given import radii_of
from bap_jax.evaluation.truncated import Truncated
from bap_jax.inputs import require_radius
from bap_jax.mathematics.norms import check_norm
from bap_jax.types import Bounds, Norm, Params, Threat

Radii = float | Sequence[float] | Mapping[Norm, float | Sequence[float]]


class Surrogate(NamedTuple):
    """A network that attacks are made on: another one, whose adversarial examples are tried as well (a transfer attack),
    or, without a name, the one in question.
    """

    name: str
    predict: Predict
    params: Params


class Job(NamedTuple):
    """A threat or cascade at its budgets, by way of one network."""

    name: str
    norm: Norm
    bounds: Bounds
    minimal: bool
    stages: tuple[Stage, ...]
    network: Surrogate
    epsilons: tuple[float, ...]
    threat: Threat | Cascade

    @property
    def cascade(self) -> bool:
        return isinstance(self.threat, Cascade)

    @property
    def black_box(self) -> bool:
        return bool(self.network.name) or all(stage.black_box for stage in self.stages)

    @property
    def truncated(self) -> Truncated | None:
        """The attack, if it is one made once and cut to every budget."""
        attack = None if isinstance(self.threat, Cascade) else self.threat.attack
        return attack if isinstance(attack, Truncated) else None

    @property
    def runs(self) -> tuple[float, ...]:
        """The budgets that something is run at: a minimal-norm attack has one, infinity, which is also where it is not cut."""
        budgets = () if self.minimal else tuple(epsilon for epsilon in self.epsilons if epsilon > 0)
        return (*budgets, math.inf) if self.measures_distance else budgets

    def is_uncut(self, epsilon: float) -> bool:
        """Whether this is the run of a truncated attack without a budget."""
        return self.truncated is not None and math.isinf(epsilon)

    @property
    def measures_distance(self) -> bool:
        """Whether its points are meant to be near ones."""
        return self.minimal or (self.truncated is not None and self.truncated.minimal)


def budgets_of(threats: Sequence[Threat | Cascade], epsilons: Radii) -> dict[str, tuple[float, ...]]:
    """Threat → its budgets, in rising order."""
    names = [threat.name for threat in threats]
    if len(set(names)) < len(names):
        raise SettingError("threats", names, "a different name for each")
    budgets = {}
    for threat in threats:
        check_norm(threat.norm)
        chosen = epsilons.get(threat.norm) if isinstance(epsilons, Mapping) else epsilons
        if chosen is None:
            raise SettingError("epsilons", epsilons, f"at least one budget for the norm {threat.norm}")
        budgets[threat.name] = radii_of(chosen)
    return budgets


def jobs_of(
    threats: Sequence[Threat | Cascade],
    sources: Sequence[Surrogate],
    network: Surrogate,
    budgets: Mapping[str, tuple[float, ...]],
    num_classes: int,
) -> list[Job]:
    """Every threat at its budgets, on the network in question and then, if it takes gradients, on each of the sources.

    Raises:
      SettingError: fewer classes than an attack needs.
    """
    jobs = []
    for threat in threats:
        stages = threat.stages if isinstance(threat, Cascade) else (stage_of(threat),)
        minimal = isinstance(threat, Threat) and threat.minimal
        for stage in stages:
            if num_classes < stage.least_classes:
                needs = f"{stage.name} needs {stage.least_classes} classes; {_instead(threat, num_classes)}"
                raise SettingError("threats", threat.name, f"attacks for {num_classes} classes; {needs}")
        stages = tuple(s._replace(attempts=min(s.attempts, num_classes - 1)) if s.targets else s for s in stages)
        jobs.append(Job(threat.name, threat.norm, threat.bounds, minimal, stages, network, budgets[threat.name], threat))
    gradients = [job for job in jobs if not (job.minimal or job.cascade or job.black_box or job.truncated)]
    return jobs + [job._replace(name=f"{job.name} from {source.name}", network=source) for source in sources for job in gradients]


def _instead(threat: Threat | Cascade, num_classes: int) -> str:
    """What to run where an attack has too few classes: the rest of its cascade, or the same attack on the cross-entropy."""
    if not isinstance(threat, Cascade):
        return "run apgd-ce instead"
    names = [stage.name for stage in threat.stages if stage.least_classes <= num_classes]
    if num_classes == 3 and "apgd-ce" in names and "apgd-dlr" not in names:  # which has no targets and one class less to rank
        names.insert(names.index("apgd-ce") + 1, "apgd-dlr")
    if "apgd-ce" in names and all(isinstance(stage.attack, BoundAttack) for stage in threat.stages):
        return f"run autoattack(attacks={tuple(names)}) instead, or --attack cascade:{'+'.join(names)}"
    return f"run {', '.join(names) or 'apgd-ce'} instead"


def check_sizes(
    threats: Sequence[Threat | Cascade], budgets: Mapping[str, tuple[float, ...]], image_shape: tuple[int, ...]
) -> None:
    """Refuses budgets wider than the box of their threat, known with the shape of an image.

    Raises:
      SettingError: with the fraction that was probably meant.
    """
    for threat in threats:
        require_radius(np.asarray(budgets[threat.name]), threat.norm, threat.bounds, image_shape, "epsilons")


def box_radius(job: Job, images: np.ndarray) -> float:
    """A radius whose ball around any point of the box holds the box."""
    width = np.broadcast_to(np.asarray(job.bounds.upper, np.float64) - np.asarray(job.bounds.lower), images.shape[1:]).ravel()
    return {
        "linf": float(width.max()),
        "l2": float(np.linalg.norm(width)),
        "l1": float(width.sum()),
        "l0": float(width.size),
        "rms": float(np.sqrt(np.mean(width**2))),
    }[job.norm]


def tolerance(job: Job | Threat, epsilon: float, size: int) -> float:
    """What rounding may add to a norm: two ULPs of the largest pixel on every feature, and the sum's own error."""
    if job.norm == "l0":
        return 0.0
    sides = [float(np.max(np.abs(side))) for side in job.bounds]
    pixel = 2 * float(np.finfo(np.float32).eps) * max([side for side in sides if math.isfinite(side)], default=1.0)
    grown = {"linf": 1.0, "rms": 1.0, "l2": math.sqrt(size), "l1": float(size)}[job.norm]
    return 0.0 if math.isinf(epsilon) else grown * pixel + 1e-5 * epsilon
