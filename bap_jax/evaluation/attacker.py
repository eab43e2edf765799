"""Attacks on batches, judged: what a network says of the images that an attack made, and how far these are from the clean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from bap_jax.evaluation import compiled
from bap_jax.evaluation.bound import Once, hashable
from bap_jax.evaluation.jobs import Job, Surrogate, tolerance
from bap_jax.evaluation.tables import Rows
from bap_jax.mathematics.per_example import num_features
from bap_jax.types import NORMS, Array, Batch, Bounds


class Attacker(NamedTuple):
    """The network in question, and how batches reach the devices and results the host."""

    network: Surrogate
    key: Array
    put: Callable[[Batch], Batch]
    fetch: Callable[[Any], Any] = jax.device_get
    keep_examples: bool = False

    def attack(self, job: Job, attack: Callable, attempt: int, epsilon: float, batch: Batch, count: int) -> Rows:
        """One attempt of a stage's attack at a budget, on a batch of ``count`` examples: a row for each."""
        radius = np.float32(max(job.epsilons) if job.minimal else epsilon)
        batch = self.put(batch)
        function, network = hashable(attack), job.network
        images, found, losses = compiled.attack(
            network.predict, function, network.params, self.key, batch, radius, np.int32(attempt)
        )
        found, moved = self.fetch((found, compiled.movement(losses)))
        rows = self._judged(job, epsilon, batch, images, found) | {"rise": moved[0], "last_rise": moved[1]}
        rows = {name: np.asarray(values)[:count] for name, values in rows.items()}
        return rows | {"num_steps": np.asarray(losses.shape[0])}

    def points(self, job: Job, batch: Batch) -> Rows:
        """What a truncated attack makes of a whole batch, padding included, before it is cut."""
        batch = self.put(batch)
        assert job.truncated is not None
        function, network = Once(hashable(job.truncated.attack)), job.network
        images, found, losses = compiled.attack(
            network.predict, function, network.params, self.key, batch, np.float32(np.inf), np.int32(0)
        )
        judged = self.judge(batch, images, job.bounds)
        images, found = self.fetch((images, found))
        return {"images": images, "found": found, job.norm: judged[job.norm], "num_steps": np.asarray(losses.shape[0])}

    def cut(self, job: Job, epsilon: float, batch: Batch, points: Rows, wrong: np.ndarray) -> Rows:
        """A truncated attack at one budget: its points, cut and judged.

        Args:
          job: the attack.
          epsilon: the budget.
          batch: the clean images.
          points: what :meth:`points` made of them.
          wrong: [n] bool, the examples that are wrong without an attack.
        """
        whole: Any = points["images"]
        clean, whole = self.put(batch), self.put(batch._replace(images=whole)).images
        images = compiled.cut(job.norm, clean.images, whole, np.float32(epsilon), job.bounds)
        uncut = points[job.norm] <= epsilon
        rows = self._judged(job, epsilon, clean, images, points["found"] & uncut)
        rows = {name: np.asarray(values)[: len(wrong)] for name, values in rows.items()}
        # what is wrong stays wrong, but may be put right by an attack that leads away from what is predicted
        rows |= {"repaired": wrong & rows["right"] & ~rows["outside_ball"] & ~rows["outside_box"] & ~rows["not_finite"]}
        rows |= {"hit": rows["hit"] & ~wrong, "lost": rows["lost"] & ~wrong}
        return rows | {"num_steps": points["num_steps"]}

    def judge(self, batch: Batch, images: Array, bounds: Bounds) -> Rows:
        """Images as the network sees them, and their distances from the batch's own."""
        return self.fetch(compiled.judge(self.network.predict, self.network.params, batch, images, bounds))

    def _judged(self, job: Job, epsilon: float, batch: Batch, images: Array, found: np.ndarray) -> Rows:
        """Attacked images, judged at a budget; ``found`` is what the attack says of them."""
        judged = self.judge(batch, images, job.bounds)
        fooled = judged["fooled"]
        inside = judged[job.norm] <= epsilon + tolerance(job, epsilon, num_features(batch.images))
        return {
            "hit": fooled & inside & judged["boxed"],
            "outside_ball": ~inside,
            "outside_box": ~judged["boxed"],
            "not_finite": ~judged["finite"],
            "unanswered": ~judged["answered"],
            "right": judged["right"],
            "lost": found & ~fooled & judged["answered"] & (not job.network.name),
            **{norm: judged[norm] for norm in NORMS},
            **({"images": self.fetch(images)} if self.keep_examples else {}),
        }
