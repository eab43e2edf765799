"""What to evaluate with: attacks, radii, examples and checkpoint, checked before any work starts."""

from __future__ import annotations

import dataclasses
from typing import cast

from bap_jax.cli.settings import parse_epsilons, parse_number
from bap_jax.errors import SettingError
from bap_jax.evaluation import deepfool_threat, fgsm_threat, pgd_threat
from bap_jax.plugins import import_object, is_import_path
from bap_jax.types import Bounds, Norm, Threat


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """What to evaluate with; the same plan on the same checkpoint gives the same numbers."""

    attack: str = "pgd"
    """`pgd`, `fgsm`, `deepfool`, a comma list of them, or `package.module:factory` that returns a Threat."""
    norm: str = "linf"
    """`linf`, `l2`, `l1` or `rms`."""
    epsilon: str = "0,0.1,0.2,0.3"
    """Radii in pixel units in [0, 1], a comma list; fractions such as 8/255 allowed."""
    steps: int = 20
    """Steps of PGD."""
    step_size: str | None = None
    """Step of PGD as a fraction of epsilon; by default 2.5 / steps."""
    restarts: int = 1
    """Random restarts of PGD."""
    limit: int | None = None
    """Only the first so many examples."""
    split: str = "test"
    """`test` or `validation`."""
    checkpoint: str = "last"
    """`last`, `best` (on validation data), or a step."""
    seed: int = 0
    """Seed of random starts."""

    def check(self) -> AttackPlan:
        """Refuses what makes no sense, before any work starts.

        Raises:
          SettingError: naming the setting, its value and what would be right.
        """
        if self.norm not in ("linf", "l2", "l1", "rms"):
            raise SettingError("--norm", self.norm, "linf, l2, l1 or rms")
        if self.split not in ("test", "validation"):
            raise SettingError("--split", self.split, "test or validation")
        for name in ("steps", "restarts", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"--{name}", value, "a whole number of at least 1")
        if self.step_size is not None and not parse_number("--step-size", self.step_size) > 0:
            raise SettingError("--step-size", self.step_size, "a fraction of epsilon above 0")
        if self.checkpoint not in ("last", "best") and not self.checkpoint.isdigit():
            raise SettingError("--checkpoint", self.checkpoint, "last, best or a step")
        parse_epsilons("--epsilon", self.epsilon)
        self.threats(Bounds())
        return self

    def threats(self, bounds: Bounds) -> list[Threat]:
        """The attacks named by ``--attack``."""
        return [self._threat(name.strip(), bounds) for name in self.attack.split(",")]

    def _threat(self, name: str, bounds: Bounds) -> Threat:
        norm = cast(Norm, self.norm)
        if is_import_path(name):
            threat = import_object("--attack", name)(norm=norm, bounds=bounds)
            if not isinstance(threat, Threat):
                raise SettingError("--attack", name, f"a factory that returns a Threat, not a {type(threat).__name__}")
            return threat
        if name == "pgd":
            relative = None if self.step_size is None else parse_number("--step-size", self.step_size)
            name = f"pgd-{self.steps}" + (f"-x{self.restarts}" if self.restarts > 1 else "")
            name += f"-step-{self.step_size}" if self.step_size is not None else ""
            return pgd_threat(
                norm=norm,
                bounds=bounds,
                num_steps=self.steps,
                relative_step_size=relative,
                restarts=self.restarts,
                name=f"{name}-{self.norm}",
            )
        if name == "fgsm":
            return fgsm_threat(norm=norm, bounds=bounds)
        if name == "deepfool":
            if norm not in ("l2", "linf"):
                raise SettingError("--norm", norm, "l2 or linf with --attack deepfool")
            return deepfool_threat(norm=norm, bounds=bounds)
        raise SettingError("--attack", name, "pgd, fgsm, deepfool, a comma list of them, or package.module:factory")
