"""What an evaluation tells: while it runs, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from bap_jax.types import Check, Norm


class Progress(NamedTuple):
    """How far an evaluation is: told after every attack on every batch."""

    threat: str  # with the stage of a cascade
    epsilon: float  # inf for a minimal-norm attack, which has none
    done: int  # examples that this attack has tried
    total: int  # examples that it will try: those that are still robust
    accuracy: float  # robust accuracy under this threat at this budget, so far: examples not yet tried count as robust
    fraction: float  # of the whole evaluation, in [0, 1], an estimate


class EvaluationResult(NamedTuple):
    """What an evaluation found. N examples in the order of the batches, padding left out; E budgets of a threat, rising."""

    num_examples: int
    clean_accuracy: float
    epsilons: Mapping[str, tuple[float, ...]]  # threat -> E budgets, in the threat's norm
    robust_accuracy: Mapping[str, np.ndarray]  # threat -> [E]
    worst_case: Mapping[Norm, np.ndarray]  # norm -> [E], correct under every threat of that norm
    index: np.ndarray  # type: ignore[assignment]  # [N] position in the data set
    label: np.ndarray  # [N]
    prediction: np.ndarray  # [N] on the clean image
    success: Mapping[str, np.ndarray]  # threat -> [E, N] bool: misclassified, be it without an attack
    distance: Mapping[str, np.ndarray]  # minimal threat -> [N]: 0 = wrong already, inf = nothing found; of cut points, uncut
    nearest: Mapping[Norm, np.ndarray]  # norm -> [N] smallest norm of all adversarial points that any attack found
    stages: Mapping[str, Mapping[str, np.ndarray]]  # cascade -> stage -> [E] robust accuracy after it
    broken_by: Mapping[str, np.ndarray]  # cascade -> [E, N] the stage, from 1, that fooled it; 0 = wrong already, -1 = robust
    examples: Mapping[str, np.ndarray]  # threat -> [E or 1, N, ...] the attacked images; {} unless asked for
    checks: tuple[Check, ...]
    repaired: Mapping[str, np.ndarray] = MappingProxyType({})  # cut attack -> [E] share wrong without it, right at its cut point
