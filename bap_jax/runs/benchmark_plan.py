"""What of the adversarial pruning benchmark's protocol is run, checked before any work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

from bap_jax.errors import SettingError

if TYPE_CHECKING:  # what attacks needs jax, and the command line's help does not
    from bap_jax.evaluation.survey import Split

NAME = "benchmark"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkPlan:
    """What of the benchmark's protocol is run; without options all of it."""

    limit: int | None = None
    """Only the first so many images for clean accuracy and AutoAttack, and at most as many to tune HO-FMN on in each trial and to
    measure it on. The protocol takes 10,000."""
    distances: int = 128
    """How many images HO-FMN's distances are measured on: the protocol's 128 have a standard error of four points."""
    trials: int = 32
    """How many configurations of FMN are tried."""
    checkpoint: str = "last"
    """`last`, `best` (on validation data), a step, or `ema`: the averaged weights of the last, of a run with --ema."""
    seed: int = 0
    """Seed of random starts, and of the search for FMN's configuration."""
    controls: bool = True
    """Check on one batch that more steps and noise change nothing, and that an unbounded attack breaks everything."""

    def check(self) -> BenchmarkPlan:
        """Refuses what makes no sense, before any work starts.

        Raises:
          SettingError: naming the option.
        """
        for name in ("limit", "distances", "trials"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"--{name}", value, "a whole number of at least 1")
        if self.checkpoint not in ("last", "best", "ema") and not self.checkpoint.isdigit():
            raise SettingError("--checkpoint", self.checkpoint, "last, best, ema or a step")
        return self

    def split(self, num_images: int) -> Split:
        """Which images HO-FMN is tuned and measured on."""
        from bap_jax.evaluation import survey_split

        size, measured = (min(number, self.limit or number) for number in (64, self.distances))
        return survey_split(num_images, num_trials=self.trials, trial_size=size, num_measured=measured)

    @property
    def name(self) -> str:
        """Of the files of an evaluation."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, allow_nan=False)
        return f"{NAME}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
