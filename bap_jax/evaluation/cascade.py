"""Cascades: attacks in a row, each on the examples that all before it left standing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bap_jax.errors import SettingError
from bap_jax.evaluation.bound import Once
from bap_jax.types import Array, AttackResult, Bounds, LogitsFn, Norm, Threat

Attempt = Callable[[LogitsFn, Array, Array, Array, Array, Array], AttackResult]


class Stage(NamedTuple):
    """One attack of a cascade, tried several times: with other restarts or other targets.

    ``attack(logits_fn, keys, images, labels, epsilon, attempt) -> AttackResult``, where ``attempt`` (a traced int32 from 0 to
    ``attempts - 1``) is the number of the restart or target. Every attempt goes to the examples still robust.
    """

    name: str
    attack: Attempt
    attempts: int = 1
    black_box: bool = False
    cost: float = 1.0  # run time of one attempt relative to other stages, for progress only
    least_classes: int = 2  # with fewer classes the attack is not defined
    targets: bool = False  # the attempts are targets: there are at most as many as wrong classes
    anywhere: bool = False  # a minimal-norm attack: its points may lie beyond the budget


class Cascade(NamedTuple):
    """Stages at one budget. Where :func:`bap_jax.evaluation.evaluate` takes a threat, it takes a cascade as well."""

    name: str
    norm: Norm
    bounds: Bounds
    stages: tuple[Stage, ...]


def stage_of(threat: Threat) -> Stage:
    """A threat as a stage of one attempt. A minimal-norm attack breaks an example if its point lies within the budget.

    Example:
      >>> from bap_jax.evaluation.threats import named_threat
      >>> stage_of(named_threat("pgd", num_steps=40)).name
      'pgd-40-linf'
    """
    least = getattr(threat.attack, "least_classes", 2)
    return Stage(threat.name, Once(threat.attack), 1, threat.black_box, threat.cost, least, anywhere=threat.minimal)


def cascade(name: str, threats: list[Threat]) -> Cascade:
    """Any list of attacks of one norm and box as a cascade.

    Args:
      name: as results show it.
      threats: in the order in which they run; cheap and strong ones first save most.

    Returns:
      Cascade.

    Raises:
      SettingError: no threats, or threats of several norms or boxes.

    Example:
      >>> from bap_jax.evaluation.threats import named_threat
      >>> [stage.name for stage in cascade("mine", [named_threat("fgsm"), named_threat("pgd")]).stages]
      ['fgsm-linf', 'pgd-linf']
    """
    if isinstance(threats, str | Threat) or not all(isinstance(threat, Threat) for threat in threats):
        raise SettingError("threats", threats, "a list of attacks with their settings, such as [named_threat('apgd-ce')]")
    if len({(threat.norm, threat.bounds) for threat in threats}) != 1:
        raise SettingError("threats", [(threat.name, threat.norm) for threat in threats], "attacks of one norm and one box")
    return Cascade(name, threats[0].norm, threats[0].bounds, tuple(stage_of(threat) for threat in threats))
