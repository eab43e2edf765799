"""Whether a run that trained on single steps learned to answer these alone, from the lines of its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bap_jax.evaluation import Check, check_overfitting
from bap_jax.runs.options import AttackOptions
from bap_jax.runs.settings import Settings

Line = Mapping[str, Any]
ROBUST = "validation_accuracy_"  # what a validation line calls its radii by


def takes_one_step(settings: Settings) -> bool:
    """Whether the examples of a run's training were made by one gradient.

    >>> takes_one_step(Settings(attack="n-fgsm")), takes_one_step(Settings(attack_steps=1)), takes_one_step(Settings())
    (True, True, False)
    """
    own = settings.attack_options
    return settings.row("budget").attacks and isinstance(own, AttackOptions) and own.gradients == 1


def series_of(lines: Sequence[Line]) -> dict[str, tuple[list[float], list[float]]]:
    """Phase → the accuracy under the training attack before each validation, and that under validation's PGD, radii above 0.

    Args:
      lines: of metrics.jsonl. Those of training hold ``adversarial_accuracy``, those of a validation ``validation_accuracy_ε``.

    Returns:
      Two lists of equal length for each phase; a validation that no training line stands before has no place in them.

    >>> lines = [{"step": 1, "adversarial_accuracy": 0.5}, {"step": 2, "adversarial_accuracy": 0.7}]
    >>> series_of([*lines, {"step": 2, "validation_accuracy_0": 1.0, "validation_accuracy_0.1": 0.25}])
    {'': ([0.6], [0.25])}
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    since: list[float] = []
    phase = ""
    for line in lines:
        if line.get("phase", "") != phase:
            phase, since = str(line.get("phase", "")), []
        if line.get("adversarial_accuracy") is not None:
            since.append(float(line["adversarial_accuracy"]))
        robust = [float(value) for name, value in line.items() if name.startswith(ROBUST) and float(name[len(ROBUST) :]) > 0]
        if robust and since:
            training, validation = found.setdefault(phase, ([], []))
            training.append(float(np.mean(since)))
            validation.append(float(np.mean(robust)))
            since = []
    return found


def overfitting_checks(settings: Settings, lines: Sequence[Line]) -> list[Check]:
    """Of a run that trained on single steps, for every phase with two validations or more.

    Args:
      settings: of the run.
      lines: of its metrics.jsonl, up to the checkpoint in question.
    """
    if not takes_one_step(settings):
        return []
    series = {phase: pair for phase, pair in series_of(lines).items() if len(pair[0]) > 1}
    checks = {phase: check_overfitting(*pair) for phase, pair in series.items()}
    return [check._replace(name=f"{check.name} ({phase})") if len(checks) > 1 else check for phase, check in checks.items()]
