"""Controls: one batch tried otherwise, which should change nothing or break everything. They feed the checks alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from bap_jax.evaluation import compiled
from bap_jax.evaluation.attacker import Attacker
from bap_jax.evaluation.bound import Once, hashable
from bap_jax.evaluation.examples import Examples
from bap_jax.evaluation.jobs import Job, box_radius
from bap_jax.evaluation.tables import Tables
from bap_jax.evaluation.threats import named_threat
from bap_jax.types import Norm, Threat


class Control(NamedTuple):
    """What came of one batch."""

    kind: Literal["stronger", "unbounded", "noise", "shrunk"]
    name: str  # the threat's, or the norm's
    epsilon: float
    broken: int
    tried: int
    kept: float = 1.0  # of kind shrunk: the median of the distance afterwards / before


class Controls(NamedTuple):
    """What an evaluation has found, as the controls look at it."""

    attacker: Attacker
    examples: Examples
    wrong: np.ndarray  # [N] bool, without an attack
    tables: Tables
    num_steps: Mapping[str, int]

    def run(self, jobs: Sequence[Job]) -> list[Control]:
        """More steps, noise, an unbounded attack, and the points of minimal-norm attacks drawn nearer."""
        found = []
        for job in jobs:
            if not isinstance(job.threat, Threat) or job.network.name or not job.runs or job.truncated:
                continue
            if job.minimal:
                found += self._shrunk(job)
                continue
            if job.threat.stronger is not None:
                found += self._stronger(job, job.threat.stronger)
            if not job.black_box and self.num_steps.get(job.name) != 1:  # one step, ever so long, may pass over every other class
                found += self._unbounded(job)
        fixed = [job for job in jobs if job.runs and not (job.minimal or job.black_box or job.truncated)]
        for norm, job in {job.norm: job for job in fixed}.items():
            found += self._noise(norm, job)
        return found

    def _try(self, job: Job, attack: Callable, epsilon: float, rows: np.ndarray) -> tuple[int, int]:
        """(examples broken, examples tried) of the first batch of some rows."""
        part, batch = next(self.examples.batches(rows))
        return int(self.attacker.attack(job, attack, 0, epsilon, batch, len(part))["hit"].sum()), len(part)

    def _stronger(self, job: Job, attack: Callable) -> list[Control]:
        """At the budget that leaves nearest to half of the examples."""
        accuracy = {epsilon: 1 - self.tables[job.name, epsilon]["broken"].mean() for epsilon in job.runs}
        epsilon = min(accuracy, key=lambda value: abs(accuracy[value] - 0.5))
        left = np.flatnonzero(~self.tables[job.name, epsilon]["broken"])
        if not len(left):
            return []
        return [Control("stronger", job.name, epsilon, *self._try(job, Once(attack), epsilon, left))]

    def _unbounded(self, job: Job) -> list[Control]:
        radius = box_radius(job, self.examples.images)
        rows = np.flatnonzero(~self.wrong)
        if not math.isfinite(radius) or not len(rows):
            return []
        return [Control("unbounded", job.name, radius, *self._try(job, job.stages[0].attack, radius, rows))]

    def _noise(self, norm: Norm, job: Job) -> list[Control]:
        """On the examples that no attack at the largest budget has broken."""
        epsilon = max(job.runs)
        left = ~self.wrong
        for (_, budget), table in self.tables.items():
            left &= ~table["broken"] | (budget != epsilon)
        rows = np.flatnonzero(left)
        if norm == "l0" or not len(rows):
            return []
        attack = Once(named_threat("noise", norm=norm, bounds=job.bounds, num_samples=50).attack)
        return [Control("noise", norm, epsilon, *self._try(job, attack, epsilon, rows))]

    def _shrunk(self, job: Job) -> list[Control]:
        """How much nearer bisection brings the points that a minimal-norm attack found."""
        table = self.tables[job.name, math.inf]
        rows = np.flatnonzero(np.isfinite(table[job.norm]) & ~self.wrong)
        if not len(rows):
            return []
        part, batch = next(self.examples.batches(rows))
        placed, network = self.attacker.put(batch), job.network
        radius, attack = np.float32(max(job.epsilons)), hashable(job.stages[0].attack)
        images, _, _ = compiled.attack(network.predict, attack, network.params, self.attacker.key, placed, radius, np.int32(0))
        shrunk = compiled.shrink(network.predict, job.norm, network.params, placed, images, job.bounds)
        judged = self.attacker.judge(placed, shrunk.images, job.bounds)
        before, after = table[job.norm][part], np.asarray(judged[job.norm])[: len(part)]
        kept = float(np.median(np.where(before > 0, after / np.where(before > 0, before, 1), 1)))
        return [Control("shrunk", job.name, math.inf, 0, len(part), kept)]
