"""What is compared with what. Plain data: read in both environments, so it imports neither jax nor torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

COMPARED_NORMS = ("linf", "l2", "l1", "l0")


class Case(NamedTuple):
    """One attack in both implementations.

    ``start``: ``none``, nothing is random in either; ``given``, both begin at the points of :func:`noise`; ``random``, each draws
    its own, so that the reference's spread over seeds is the yardstick.
    """

    name: str
    ours: str  # the function in bap_jax.attacks
    library: str
    norm: str
    minimal: bool = False  # looks for the nearest adversarial point; else within a budget
    start: str = "none"
    settings: dict[str, float] = {}  # noqa: RUF012  # steps and such, in words of this package; never modified
    note: str = ""


def cases() -> list[Case]:
    """Every comparison, cheap ones first."""
    found = [
        Case("fgsm-linf", "fgsm", "torchattacks", "linf"),
        Case("pgd-linf", "pgd", "torchattacks", "linf", settings={"num_steps": 20, "relative_step": 0.125}),
        Case("pgd-l2", "pgd", "torchattacks", "l2", settings={"num_steps": 20, "relative_step": 0.125}),
        Case("pgd-linf-foolbox", "pgd", "foolbox", "linf", settings={"num_steps": 20, "relative_step": 0.125}),
        Case("pgd-l2-foolbox", "pgd", "foolbox", "l2", settings={"num_steps": 20, "relative_step": 0.125}),
        *(
            Case(f"apgd-{loss}-{norm}", "apgd", "torchattacks", norm, start="given", settings={"num_steps": 100})
            for norm in ("linf", "l2")
            for loss in ("ce", "dlr")
        ),
        Case("apgd-ce-l1", "apgd", "adv-lib", "l1", start="random", settings={"num_steps": 100}),
        *(
            Case(f"apgd-t-{norm}", "apgd_targeted", "torchattacks", norm, start="given", settings={"num_steps": 100})
            for norm in ("linf", "l2")
        ),
        *(
            Case(f"fab-t-{norm}", "fab_targeted", "adv-lib", norm, minimal=True, settings={"num_steps": 50})
            for norm in ("linf", "l2", "l1")
        ),
        *(Case(f"fab-{norm}", "fab", "torchattacks", norm, minimal=True, settings={"num_steps": 50}) for norm in ("linf", "l2")),
        Case("fab-l1", "fab", "adv-lib", "l1", minimal=True, settings={"num_steps": 50}),  # torchattacks' L1 form raises
        *(
            Case(f"square-{norm}", "square", "torchattacks", norm, start="random", settings={"num_queries": 2000})
            for norm in ("linf", "l2")
        ),
        Case("deepfool-l2", "deepfool", "foolbox", "l2", minimal=True, settings={"num_steps": 50}),
        Case("deepfool-linf", "deepfool", "foolbox", "linf", minimal=True, settings={"num_steps": 50}),
        Case("deepfool-l2-torchattacks", "deepfool", "torchattacks", "l2", minimal=True, settings={"num_steps": 50}),
        Case("ddn-l2", "ddn", "adv-lib", "l2", minimal=True, settings={"num_steps": 100}),
        Case("ddn-l2-foolbox", "ddn", "foolbox", "l2", minimal=True, settings={"num_steps": 100}),
        *(
            Case(f"fmn-{norm}", "fmn", "adv-lib", norm, minimal=True, settings={"num_steps": 100})
            for norm in ("linf", "l2", "l1", "l0")
        ),
        *(
            Case(f"fmn-{norm}-foolbox", "fmn", "foolbox", norm, minimal=True, settings={"num_steps": 100})
            for norm in ("linf", "l2", "l1", "l0")
        ),
        Case("sigma-zero-l0", "sigma_zero", "adv-lib", "l0", minimal=True, settings={"num_steps": 200}),
        Case("cw-l2", "carlini_wagner", "adv-lib", "l2", minimal=True, settings={"num_steps": 200, "search_steps": 5}),
        Case("cw-l2-foolbox", "carlini_wagner", "foolbox", "l2", minimal=True, settings={"num_steps": 200, "search_steps": 5}),
        *(
            Case(f"autoattack-{norm}", "autoattack", "torchattacks", norm, start="random", settings={"num_steps": 100})
            for norm in ("linf", "l2")
        ),
        # The original package, by AutoAttack's authors. Its FAB stops at the first target within the budget: verdicts compare.
        *(
            Case(f"apgd-{loss}-linf-pyautoattack", ours, "pyautoattack", "linf", start="given", settings={"num_steps": 100})
            for loss, ours in (("ce", "apgd"), ("dlr", "apgd"), ("t", "apgd_targeted"))
        ),
        Case("fab-t-linf-pyautoattack", "fab_targeted", "pyautoattack", "linf", settings={"num_steps": 100}),
        Case("square-linf-pyautoattack", "square", "pyautoattack", "linf", start="random", settings={"num_queries": 5000}),
        Case("autoattack-linf-pyautoattack", "autoattack", "pyautoattack", "linf", start="random", settings={"num_steps": 100}),
    ]
    return found


def by_name(name: str) -> Case:
    """The case of that name."""
    return next(case for case in cases() if case.name == name)


def noise(images: np.ndarray, norm: str, seed: int) -> np.ndarray:
    """What a given start is made of, one array per image of shape [B, H, W, C]: U(−1, 1) for L∞, else N(0, 1)."""
    random = np.random.RandomState(1000 + seed)
    drawn = random.uniform(-1, 1, images.shape) if norm == "linf" else random.standard_normal(images.shape)
    return drawn.astype(np.float32)


def start(images: np.ndarray, norm: str, epsilon: float, seed: int) -> np.ndarray:
    """Auto-PGD's random start: x + ε·t/‖t‖, clipped to [0, 1]."""
    drawn = noise(images, norm, seed)
    flat = drawn.reshape(len(drawn), -1)
    size = np.abs(flat).max(axis=1) if norm == "linf" else np.sqrt(np.square(flat).sum(axis=1))
    return np.clip(images + epsilon * drawn / size.reshape(-1, 1, 1, 1), 0, 1).astype(np.float32)


def distances(images: np.ndarray, adversarial: np.ndarray, norm: str) -> np.ndarray:
    """The norm of every perturbation, in float64; l0 counts features."""
    delta = (adversarial.astype(np.float64) - images).reshape(len(images), -1)
    if norm == "linf":
        return np.abs(delta).max(axis=1)
    if norm == "l2":
        return np.sqrt(np.square(delta).sum(axis=1))
    return np.abs(delta).sum(axis=1) if norm == "l1" else (delta != 0).sum(axis=1).astype(float)
