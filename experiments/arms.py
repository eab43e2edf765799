"""The arms of the paper, as settings of `bap train`; `epsilons` of a sweep go to those that prescribe a uniform budget."""

from __future__ import annotations

from typing import Any

from bap_jax.runs.settings import Settings

Arm = dict[str, Any]
Optimiser = tuple[str, float, float]  # its name, its rate, its rate in fine-tuning

NT_PRUNE: Arm = {"method": "nt"}
AP_PGD: Arm = {"method": "ap"}
AP_FGSM: Arm = {"method": "ap", "attack": "fgsm"}
# Ours: margins by PGD, cutoff at the batch mean, scale 1.2, a fresh attack; on the path that the published numbers took.
BAP_AT_FIRST: Arm = {"method": "bap", "path": "ray", "halving": "linear", "wrong": "zero"}
BAP: Arm = BAP_AT_FIRST  # until choice.py has its runs: then what it chooses, and everything here is run again

_SEEN: Arm = {
    "method": "bap",
    "path": "ball",
    "halving": "log",
    "wrong": "cutoff",
    "cutoff_over": "all",
    "cutoff": "mean",
    "scale": 1.2,
}
# One of these becomes BAP, by the rule of choice.py, on validation data of digits, MNIST and CIFAR-10 together. In the order in
# which they are preferred where the rule cannot tell, and each said in full: what the default is meanwhile does not matter.
CANDIDATES: tuple[Arm, ...] = (
    _SEEN,
    {**_SEEN, "scale": 1.6},
    {**_SEEN, "cutoff_over": "right"},
    {**_SEEN, **BAP_AT_FIRST},
    {**_SEEN, "cutoff": "running-mean:0.9"},
    {**_SEEN, "wrong": "floor:0.5"},
    {**_SEEN, "scale": 2.0},
)
# The first candidate without one of its parts, and two more; on digits and MNIST only, where they are affordable.
PARTS: tuple[Arm, ...] = (
    {**_SEEN, "wrong": "zero"},
    {**_SEEN, "path": "ray"},
    {**_SEEN, "halving": "linear"},
    {**_SEEN, "scale": 1.0},
    {**_SEEN, "cutoff": "running-mean:0.9", "scale": 1.6},
)

_BY_DEEPFOOL: Arm = {"search": "deepfool", "example": "rescaled", "norm": "rms"}
UNRESTRICTED: Arm = {**_BY_DEEPFOOL, "cutoff": "off", "scale": 1.0}
BAP_BY_DEEPFOOL: Arm = {**_BY_DEEPFOOL, "scale": 0.9}  # the authors' way
BY_DEEPFOOL_CUT_ONLY: Arm = {**_BY_DEEPFOOL, "scale": 1.0}
BY_DEEPFOOL_SCALE_ONLY: Arm = {**_BY_DEEPFOOL, "cutoff": "off", "scale": 0.9}

PAPER = (NT_PRUNE, AP_PGD, AP_FGSM, BAP, UNRESTRICTED, BAP_BY_DEEPFOOL)

_ROBUST: Arm = {"init_from": "starts/robust"}
BLIND: Arm = {name: value for name, value in BAP.items() if name != "method"} | {"budget": "cutoff-scale", "loss": "mix"}


def field_methods(radius: float, examples: Arm) -> dict[str, Arm]:
    """The field's methods with every kernel prunable, beside adversarial and blind pruning: name -> arm, in the order of what a
    run that is stopped early should have. Those that need a trained network begin with ``starts/robust``, a blind one with
    ``starts/blind``.

    Args:
      radius: what they are told.
      examples: the training attack and its options, of all arms.
    """
    told = {**examples, "budget.epsilon": radius}
    single = {name: value for name, value in examples.items() if name == "attack"}
    return {
        f"ap {radius:.2g}": {"method": "ap", **told},
        "bap": {**BAP, **examples},
        "hydra": {"method": "hydra", **_ROBUST, **told},
        "bap hydra": {"method": "hydra", "init_from": "starts/blind", **examples, **BLIND},
        "pwoa": {"method": "pwoa", **_ROBUST, "pruner.prunable": "kernels"},
        "harp": {"method": "harp", **_ROBUST, **told},
        "flying_bird": {"method": "flying_bird", **told},
        "radmm": {"method": "radmm", **_ROBUST, **told},
        "mad": {"method": "mad", **_ROBUST, **told},
        "twin_rep": {"method": "twin_rep", **told},
        "li20": {"method": "li20", **single, "budget.epsilon": radius, "phases": {"finetune": examples}},
        "robust_bird": {"method": "robust_bird", "pruner.prunable": "kernels", **told},
        "s2ap": {"method": "s2ap", **_ROBUST, **told},
        "flying_bird_plus": {"method": "flying_bird_plus", **told, "validations": 10},
    }


def with_optimiser(arm: Arm, base: Settings, optimiser: Optimiser | None) -> Arm:
    """An arm with one optimiser in all of its phases; None leaves it what the method has by default."""
    if optimiser is None:
        return arm
    kind, rate, later = optimiser
    told: dict[str, Any] = {name: dict(changes) for name, changes in arm.get("phases", {}).items()}
    for phase, _ in base.changed(**arm).in_phases():
        own = later if phase.name == "finetune" else rate
        told.setdefault(phase.name, {}).update({"optimizer": kind, "optimizer.learning_rate": own})
    return {**arm, "optimizer": kind, "optimizer.learning_rate": rate} | ({"phases": told} if told else {})


def with_cycles(arm: Arm, base: Settings) -> Arm:
    """PwoA with a cycle of its rate for every three epochs of its pruning, as published; any other arm as it is."""
    if arm["method"] != "pwoa":
        return arm
    cycles = max(1, base.changed(**arm).in_phases()[0][1].epochs // 3)
    phases = arm.get("phases", {})
    return {**arm, "phases": {**phases, "prune": {**phases.get("prune", {}), "rate_cycles": cycles}}}


def with_looks(arm: Arm, every: int) -> Arm:
    """ADMM, PwoA's or another's, with so many steps between two looks at the sparse weights: for runs of few epochs."""
    phases = arm.get("phases", {})
    return {**arm, "phases": {**phases, "prune": {**phases.get("prune", {}), "pruner.every": every}}}
