"""What `bap bench` can time by name, besides whole steps and sweeps, which are told more."""

from __future__ import annotations

from types import MappingProxyType
from typing import Protocol

from bap_jax.bench.arms import Measured, Told
from bap_jax.bench.attack import time_attacks
from bap_jax.bench.autoattack import time_autoattack
from bap_jax.bench.budget import time_budgets
from bap_jax.bench.files import time_files
from bap_jax.bench.imports import time_imports
from bap_jax.bench.mask import time_masks
from bap_jax.runs.settings import Settings


class Suite(Protocol):
    """``(settings, rounds, progress)`` to the figures as JSON and the rows."""

    def __call__(self, settings: Settings, *, rounds: int, progress: Told) -> Measured: ...


SUITES: MappingProxyType[str, Suite] = MappingProxyType(
    {
        "attack": time_attacks,
        "mask": time_masks,
        "budget": time_budgets,
        "autoattack": time_autoattack,
        "io": time_files,
        "import": time_imports,
    }
)
