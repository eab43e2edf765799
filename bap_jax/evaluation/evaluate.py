"""Robust accuracy of a model under a set of threats, with the checks that make the numbers believable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.evaluation import audit, compiled
from bap_jax.evaluation.accuracy import clean_accuracy, robust_accuracy
from bap_jax.evaluation.cascade import Cascade, Once, Stage
from bap_jax.evaluation.compiled import NORMS, Predict
from bap_jax.evaluation.examples import Pool
from bap_jax.evaluation.given import attacks_of, batches_of, key_of, on_host, sources_of
from bap_jax.evaluation.jobs import Job, Radii, Source, box_radius, budgets_of, check_sizes, jobs_of, tolerance
from bap_jax.evaluation.result import EvaluationResult, Progress
from bap_jax.evaluation.threats import named_threat
from bap_jax.inputs import require_labels
from bap_jax.mathematics.per_example import num_features
from bap_jax.types import Array, Batch, Bounds, Norm, Params, Threat

Rows = dict[str, np.ndarray]  # columns of a table, each [N] or [n]
FLAGS = ("outside_ball", "outside_box", "not_finite", "unanswered", "lost")
PASSES = 5  # how often one batch is predicted in search of noise


def evaluate(
    predict: Predict,
    params: Params,
    batches: Iterable[Batch] | Batch,
    threats: Sequence[Threat | Cascade] | Threat | Cascade,
    epsilons: Radii,
    key: Array | int,
    *,
    sources: Sequence[Source] | Source = (),
    controls: bool = True,
    keep_examples: bool = False,
    recall: Callable[[str], Rows | None] | None = None,
    record: Callable[[str, Rows], None] | None = None,
    put: Callable[[Batch], Batch] | None = None,
    fetch: Callable[[Any], Any] = jax.device_get,
    progress: Callable[[Progress], None] | None = None,
) -> EvaluationResult:
    """Attack every example with every threat at every ε, judge the attacked images anew, and check the result.

    An example counts as robust at ε if it is correct on the clean image and under every threat; the worst case is taken per
    example. Examples that are wrong already are not attacked. Every attacked image is predicted again by a program of its own,
    and measured: one outside its ball (beyond rounding) or its box, or one at which the network decides nothing, is no
    success, and a check fails. At ε = 0 no attack is run, since the ball holds the image alone. A minimal-norm attack is run
    once, and has succeeded at every ε that is at least its distance. An attack of
    :class:`bap_jax.evaluation.truncated.Truncated` is run once, on every example, and its points are cut to each ε and predicted
    there. Each attempt of a cascade's stages is run on the examples that are still robust.

    Each function is compiled once per ``predict`` and attack: ε and ``params`` are traced, and the examples left are packed into
    batches of one size, so that other budgets and other checkpoints of the same model cost no compilation, provided that the same
    ``predict`` object is passed again. Keys are ``fold_in(key, index)`` per row, so that batch size, padding, sharding and the
    examples that are left change no random number.

    Args:
      predict: (params, images [B, ...]) to logits [B, K], deterministic, in evaluation mode.
      params: whatever ``predict`` wants; on a mesh replicated or sharded by the caller.
      batches: every example once, all of one size; padding has weight 0. The images are kept on the host.
      threats: attacks and cascades, of different names; or one alone.
      epsilons: budgets from 0 to the size of the box, or one, for all threats, or for each norm its own.
      key: one typed key, or a whole number to make it of.
      sources: other networks, such as the dense one. Every gradient attack with a budget is run on them too, and its images are
        judged on the network in question: named ``THREAT from SOURCE``, and counted like any attack.
      controls: try, on one batch, what should change nothing or break everything: more steps, noise, an unbounded attack, and
        drawing the points of minimal-norm attacks nearer. They feed the checks alone.
      keep_examples: return the attacked images too.
      recall: ``recall(name)`` gives what ``record(name, rows)`` was told in an earlier evaluation with the same arguments, or
        None. One name per attack and batch: an evaluation that was cut off goes on where it stopped.
      record: see ``recall``.
      put: brings a batch to the devices, e.g. ``lambda batch: jax.device_put(batch, batch_sharding)``; nothing by default.
      fetch: brings results to the host as numpy; with several hosts, a gather over processes.
      progress: called after every attack on every batch.

    Returns:
      EvaluationResult. A failed check does not stop the evaluation: look at ``checks``.

    Raises:
      SettingError: budgets, names, labels or images that cannot be, a network that returns no logits, no example at all, or
        fewer classes than an attack needs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax.evaluation.threats import fgsm_threat
      >>> from bap_jax.types import Batch
      >>> images = jnp.array([[0.9, 0.1], [0.6, 0.5]])
      >>> batch = Batch(images, jnp.array([0, 0]), jnp.arange(2), jnp.ones(2))
      >>> result = evaluate(lambda scale, x: scale * x, 1.0, [batch], [fgsm_threat()], [0.0, 0.1], jax.random.key(0))
      >>> result.clean_accuracy, result.robust_accuracy["fgsm-linf"].tolist()
      (1.0, [1.0, 0.5])
    """
    if not callable(predict):
        raise SettingError("predict", type(predict).__name__, "a function of (params, images) that returns logits")
    threats, sources, key = attacks_of(threats), sources_of(sources), key_of(key)
    budgets = budgets_of(threats, epsilons)
    network = Source("", predict, params)
    run = _Run(network, key, keep_examples, recall, record, put, fetch, progress)
    run.look(batches_of(batches), threats, budgets)
    jobs = jobs_of(threats, sources, network, budgets, run.clean["logits"].shape[1])
    run.plan(jobs)
    for job in jobs:
        run.attack(job)
    tried = run.controls(jobs) if controls else []
    return run.result(jobs, tried)


class _Run:
    """One evaluation under way: the examples, and per attack and budget a table with a row for each."""

    def __init__(self, network, key, keep_examples, recall, record, put, fetch, progress):
        self.network, self.key, self.keep_examples = network, key, keep_examples
        self.recall, self.record = recall or (lambda name: None), record or (lambda name, rows: None)
        self.put, self.fetch, self.tell = put or (lambda batch: batch), fetch, progress or (lambda told: None)
        self.tables: dict[tuple[str, float], Rows] = {}
        self.points: dict[int, Rows] = {}  # batch -> what a truncated attack made of it
        self.after: dict[tuple[str, float], list[float]] = {}
        self.num_steps: dict[str, int] = {}
        self.difference = self.scale = 0.0
        self.neighbours: tuple[float, int, int] | None = None
        self.done = self.total = 0.0

    def look(
        self, batches: Iterable[Batch], threats: Sequence[Threat | Cascade], budgets: Mapping[str, tuple[float, ...]]
    ) -> None:
        """Predict the clean images; refuse what cannot be attacked; keep what can."""
        parts: list[Rows] = []
        pools: list[Pool] = []
        largest: tuple[Batch, Rows, np.ndarray] | None = None
        boxes = tuple(threat.bounds for threat in threats)
        for batch in batches:
            host, real = on_host(batch, boxes, pools[0].images.shape[1:] if pools else None)
            if not pools:
                check_sizes(threats, budgets, host.images.shape[1:])
            rows = self.fetch(compiled.look(self.network.predict, self.network.params, self.put(host), boxes))
            _check_rows(rows, real, boxes)
            parts.append({name: np.asarray(values)[real] for name, values in rows.items()})
            pools.append(Pool(host.images[real], host.labels[real], host.index[real], len(real)))
            if real.any() and (largest is None or len(real) > len(largest[2])):
                largest = host, rows, real
        if largest is None:
            raise SettingError("batches", 0, "at least one example of weight > 0")
        self._look_again(*largest, boxes)
        self.clean: Rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        images, labels, index = (np.concatenate(columns) for columns in list(zip(*pools, strict=True))[:3])
        self.pool = Pool(images, labels, index, max(pool.batch_size for pool in pools))
        self.wrong = self.clean["prediction"] != self.clean["label"]

    def _look_again(self, batch: Batch, first: Rows, real: np.ndarray, boxes: tuple[Bounds, ...]) -> None:
        """Again by the same program (noise drawn at run time) and once by another (noise drawn while tracing); then by that one
        in another order, and beside other images."""
        predict, params, placed = self.network.predict, self.network.params, self.put(batch)
        again = [compiled.look(predict, params, self.put(batch), boxes) for _ in range(PASSES - 2)]
        judge = lambda images: self._judge(placed, images, Bounds())["logits"]  # noqa: E731
        logits, other = first["logits"][real], judge(batch.images)
        self.difference = max(_largest_gap(found[real], logits) for found in (*(self.fetch(r["logits"]) for r in again), other))
        self.scale = float(np.max(np.abs(np.where(np.isfinite(logits), logits, 0)), initial=0.0))
        if len(real) > 1:
            self.neighbours = _among_others(judge, np.asarray(batch.images), real, other)

    def plan(self, jobs: Sequence[Job]) -> None:
        costs = [_cost(job, stage, eps) * stage.attempts for job in jobs for stage in job.stages for eps in job.runs]
        self.total = sum(costs) or 1.0

    def attack(self, job: Job) -> None:
        """Every attempt of every stage at every budget, each on the examples that are still robust."""
        for epsilon in job.runs:
            table = self._new_table()
            after = []
            for position, stage in enumerate(job.stages, 1):
                for attempt in range(stage.attempts):
                    self._attempt(job, stage, position, attempt, epsilon, table)
                after.append(1 - float(table["broken"].mean()))
            self.tables[job.name, epsilon], self.after[job.name, epsilon] = table, after
        self.points.clear()

    def _new_table(self) -> Rows:
        count = len(self.wrong)
        return {
            "broken": self.wrong.copy(),
            "broken_by": np.where(self.wrong, 0, -1).astype(np.int8),
            "attacked": np.zeros(count, bool),
            **{column: np.zeros(count, bool) for column in (*FLAGS, "repaired")},
            **{column: np.zeros(count, np.float32) for column in ("rise", "last_rise")},
            **{norm: np.where(self.wrong, 0, np.inf).astype(np.float32) for norm in (*NORMS, "rms")},
            **({"images": self.pool.images.copy()} if self.keep_examples else {}),
        }

    def _attempt(self, job: Job, stage: Stage, position: int, attempt: int, epsilon: float, table: Rows) -> None:
        left = np.arange(len(self.wrong)) if job.truncated else np.flatnonzero(~table["broken"])
        step = _cost(job, stage, epsilon) / max(len(left), 1)
        label = f"{job.name}: {stage.name}" if job.cascade else job.name
        label += f" {attempt + 1}/{stage.attempts}" if stage.attempts > 1 else ""
        done = 0
        for number, (part, batch) in enumerate(self.pool.batches(left)):
            name = f"{job.name}/{epsilon!r}/{position}/{attempt}/{number}"
            rows = self.recall(name)
            if rows is None:
                if job.truncated:
                    rows = self._cut_batch(job, epsilon, number, batch, part)
                else:
                    rows = self._attack_batch(job, stage, attempt, epsilon, batch, len(part))
                self.record(name, rows)
            self.num_steps[job.name] = max(self.num_steps.get(job.name, 0), int(rows["num_steps"]))
            self._enter(table, part, rows, position)
            done += len(part)
            self.done += step * len(part)
            accuracy = 1 - float(table["broken"].mean())
            self.tell(Progress(label, epsilon, done, len(left), accuracy, min(1.0, self.done / self.total)))
        if not len(left):
            self.done += _cost(job, stage, epsilon)

    def _attack_batch(self, job: Job, stage: Stage, attempt: int, epsilon: float, batch: Batch, count: int) -> Rows:
        radius = np.float32(max(job.epsilons) if job.minimal else epsilon)
        batch = self.put(batch)
        function, network = _hashable(stage.attack), job.network
        images, found, losses = compiled.attack(
            network.predict, function, network.params, self.key, batch, radius, np.int32(attempt)
        )
        found, moved = self.fetch((found, compiled.movement(losses)))
        rows = self._rows(job, epsilon, batch, images, found) | {"rise": moved[0], "last_rise": moved[1]}
        rows = {name: np.asarray(values)[:count] for name, values in rows.items()}
        return rows | {"num_steps": np.asarray(losses.shape[0])}

    def _cut_batch(self, job: Job, epsilon: float, number: int, batch: Batch, part: np.ndarray) -> Rows:
        """A truncated attack at one budget: its points are made at the first, and cut and judged at each."""
        if number not in self.points:
            name = f"{job.name}/points/{number}"
            found = self.recall(name)
            if found is None:
                found = self._make_points(job, batch)
                self.record(name, found)
            self.points[number] = found
        points = self.points[number]
        whole: Any = points["images"]
        clean, whole = self.put(batch), self.put(batch._replace(images=whole)).images
        images = compiled.cut(job.norm, clean.images, whole, np.float32(epsilon), job.bounds)
        uncut = points[job.norm] <= epsilon
        rows = self._rows(job, epsilon, clean, images, points["found"] & uncut)
        rows = {name: np.asarray(values)[: len(part)] for name, values in rows.items()}
        wrong = self.wrong[part]  # these stay wrong, but may be put right by an attack that leads away from what is predicted
        rows |= {"repaired": wrong & rows["right"] & ~rows["outside_ball"] & ~rows["outside_box"] & ~rows["not_finite"]}
        rows |= {"hit": rows["hit"] & ~wrong, "lost": rows["lost"] & ~wrong}
        return rows | {"num_steps": points["num_steps"]}

    def _make_points(self, job: Job, batch: Batch) -> Rows:
        """What a truncated attack makes of a whole batch, padding included, before it is cut."""
        batch = self.put(batch)
        assert job.truncated is not None
        function, network = Once(_hashable(job.truncated.attack)), job.network
        images, found, losses = compiled.attack(
            network.predict, function, network.params, self.key, batch, np.float32(np.inf), np.int32(0)
        )
        judged = self._judge(batch, images, job.bounds)
        images, found = self.fetch((images, found))
        return {"images": images, "found": found, job.norm: judged[job.norm], "num_steps": np.asarray(losses.shape[0])}

    def _rows(self, job: Job, epsilon: float, batch: Batch, images: Array, found: np.ndarray) -> Rows:
        """Attacked images, judged at a budget; ``found`` is what the attack says of them."""
        judged = self._judge(batch, images, job.bounds)
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
            **{norm: judged[norm] for norm in (*NORMS, "rms")},
            **({"images": self.fetch(images)} if self.keep_examples else {}),
        }

    def _judge(self, batch: Batch, images: Array, bounds: Bounds) -> Rows:
        return self.fetch(compiled.judge(self.network.predict, self.network.params, batch, images, bounds))

    @staticmethod
    def _enter(table: Rows, part: np.ndarray, rows: Rows, position: int) -> None:
        hit = rows["hit"]
        table["attacked"][part] = True
        table["broken"][part] |= hit
        table["broken_by"][part[hit]] = position
        for column in FLAGS:
            table[column][part] |= rows[column]
        for column in ("rise", "last_rise", "repaired"):
            table[column][part] = rows.get(column, 0)
        for norm in (*NORMS, "rms"):
            table[norm][part[hit]] = rows[norm][hit]
        if "images" in table:
            table["images"][part] = rows["images"]

    def controls(self, jobs: Sequence[Job]) -> list[audit.Control]:
        """On one batch of examples: what should change nothing, and what should break everything."""
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

    def _try(self, job: Job, function: Callable, epsilon: float, rows: np.ndarray) -> tuple[int, int]:
        """(examples broken, examples tried) of the first batch of some rows."""
        part, batch = next(self.pool.batches(rows))
        stage = Stage("control", function)
        return int(self._attack_batch(job, stage, 0, epsilon, batch, len(part))["hit"].sum()), len(part)

    def _stronger(self, job: Job, function: Callable) -> list[audit.Control]:
        """At the budget that leaves nearest to half of the examples."""
        accuracy = {epsilon: 1 - self.tables[job.name, epsilon]["broken"].mean() for epsilon in job.runs}
        epsilon = min(accuracy, key=lambda value: abs(accuracy[value] - 0.5))
        left = np.flatnonzero(~self.tables[job.name, epsilon]["broken"])
        if not len(left):
            return []
        broken, tried = self._try(job, Once(function), epsilon, left)
        return [audit.Control("stronger", job.name, epsilon, broken, tried)]

    def _unbounded(self, job: Job) -> list[audit.Control]:
        radius = box_radius(job, self.pool.images)
        rows = np.flatnonzero(~self.wrong)
        if not math.isfinite(radius) or not len(rows):
            return []
        broken, tried = self._try(job, job.stages[0].attack, radius, rows)
        return [audit.Control("unbounded", job.name, radius, broken, tried)]

    def _noise(self, norm: Norm, job: Job) -> list[audit.Control]:
        epsilon = max(job.runs)
        white = [other for other in self.tables if other[1] == epsilon]
        left = ~self.wrong
        for which in white:
            left &= ~self.tables[which]["broken"]
        rows = np.flatnonzero(left)
        if norm == "l0" or not len(rows):
            return []
        broken, tried = self._try(
            job, Once(named_threat("noise", norm=norm, bounds=job.bounds, num_samples=50).attack), epsilon, rows
        )
        return [audit.Control("noise", norm, epsilon, broken, tried)]

    def _shrunk(self, job: Job) -> list[audit.Control]:
        """How much nearer bisection brings the points that a minimal-norm attack found."""
        table = self.tables[job.name, math.inf]
        rows = np.flatnonzero(np.isfinite(table[job.norm]) & ~self.wrong)
        if not len(rows):
            return []
        part, batch = next(self.pool.batches(rows))
        images, _, _ = compiled.attack(
            job.network.predict,
            _hashable(job.stages[0].attack),
            job.network.params,
            self.key,
            self.put(batch),
            np.float32(max(job.epsilons)),
            np.int32(0),
        )
        shrunk = compiled.shrink(job.network.predict, job.norm, job.network.params, self.put(batch), images, job.bounds)
        judged = self._judge(self.put(batch), shrunk.images, job.bounds)
        before, after = table[job.norm][part], np.asarray(judged[job.norm])[: len(part)]
        kept = float(np.median(np.where(before > 0, after / np.where(before > 0, before, 1), 1)))
        return [audit.Control("shrunk", job.name, math.inf, 0, len(part), kept)]

    def result(self, jobs: Sequence[Job], controls: Sequence[audit.Control]) -> EvaluationResult:
        correct = ~self.wrong
        success = {job.name: np.stack([self._success(job, epsilon) for epsilon in job.epsilons]) for job in jobs}
        accuracy = {name: np.array([robust_accuracy(correct, row[None]) for row in rows]) for name, rows in success.items()}
        cascades = [job for job in jobs if job.cascade]
        evidence = audit.Evidence(
            clean=self.clean,
            difference=self.difference,
            scale=self.scale,
            neighbours=self.neighbours,
            jobs=jobs,
            tables=self.tables,
            after=self.after,
            success=success,
            accuracy=accuracy,
            num_steps=self.num_steps,
            controls=controls,
        )
        return EvaluationResult(
            num_examples=len(self.wrong),
            clean_accuracy=clean_accuracy(self.clean["prediction"], self.clean["label"]),
            epsilons={job.name: job.epsilons for job in jobs},
            robust_accuracy=accuracy,
            worst_case=_worst_case(jobs, correct, success),
            index=self.clean["index"],
            label=self.clean["label"],
            prediction=self.clean["prediction"],
            success=success,
            distance={job.name: self.tables[job.name, math.inf][job.norm] for job in jobs if job.measures_distance},
            nearest={norm: np.min([t[norm] for t in self.tables.values()], axis=0) for norm in NORMS} if self.tables else {},
            stages={job.name: self._stages(job) for job in cascades},
            broken_by={job.name: np.stack([self._broken_by(job, epsilon) for epsilon in job.epsilons]) for job in cascades},
            examples={
                job.name: np.stack(
                    [self.tables[job.name, epsilon]["images"] for epsilon in job.runs if not job.is_uncut(epsilon)]
                )
                for job in jobs
                if self.keep_examples and not all(job.is_uncut(epsilon) for epsilon in job.runs)
            },
            checks=audit.checks_of(evidence),
            repaired={job.name: self._repaired(job) for job in jobs if job.truncated},
        )

    def _repaired(self, job: Job) -> np.ndarray:
        return np.array([self.tables[job.name, eps]["repaired"].mean() if eps > 0 else 0.0 for eps in job.epsilons])

    def _success(self, job: Job, epsilon: float) -> np.ndarray:
        if epsilon == 0:
            return self.wrong
        if job.minimal:
            return self.wrong | (self.tables[job.name, math.inf][job.norm] <= epsilon * (1 + 1e-6))
        return self.tables[job.name, epsilon]["broken"]

    def _stages(self, job: Job) -> dict[str, np.ndarray]:
        start = 1 - float(self.wrong.mean())
        per_stage = [[self.after[job.name, eps][place] if eps > 0 else start for eps in job.epsilons]
                     for place in range(len(job.stages))]  # fmt: skip
        return {stage.name: np.array(values) for stage, values in zip(job.stages, per_stage, strict=True)}

    def _broken_by(self, job: Job, epsilon: float) -> np.ndarray:
        return self.tables[job.name, epsilon]["broken_by"] if epsilon > 0 else np.where(self.wrong, 0, -1).astype(np.int8)


def _worst_case(jobs: Sequence[Job], correct: np.ndarray, success: Mapping[str, np.ndarray]) -> dict[Norm, np.ndarray]:
    groups: dict[Norm, list[np.ndarray]] = {}
    for job in jobs:
        groups.setdefault(job.norm, []).append(success[job.name])
    return {
        norm: np.array([robust_accuracy(correct, at_epsilon) for at_epsilon in np.stack(group, axis=1)])
        for norm, group in groups.items()
    }


def _largest_gap(some: np.ndarray, others: np.ndarray) -> float:
    """The largest difference of two arrays of logits; infinite where one is finite and the other is not."""
    both = np.isfinite(some) & np.isfinite(others)
    if (np.isfinite(some) != np.isfinite(others)).any():
        return math.inf
    return float(np.max(np.abs(np.where(both, some, 0) - np.where(both, others, 0)), initial=0.0))


def _among_others(
    logits_of: Callable[[np.ndarray], np.ndarray], images: np.ndarray, real: np.ndarray, logits: np.ndarray
) -> tuple[float, int, int]:
    """A batch in another order, and with half of its rows (and its padding) replaced: (the largest difference of a logit of the
    rows that stay, how many of their predictions change, how many they are)."""
    rows, size = np.flatnonzero(real), len(real)
    order = np.concatenate([np.arange(0, size, 2), np.arange(1, size, 2)])[::-1]  # no pair stays together
    moved = np.empty_like(logits)
    moved[order] = logits_of(images[order])
    stay = rows[::2]
    mirrored = images[real].min() + images[real].max() - images  # as far from the images as the box allows, and inside it
    mirrored[stay] = images[stay]
    beside = logits_of(mirrored)[stay]
    gap = max(_largest_gap(moved[rows], logits[rows]), _largest_gap(beside, logits[stay]))
    changed = moved.argmax(1) != logits.argmax(1)
    changed[stay] |= beside.argmax(1) != logits[stay].argmax(1)
    return gap, int(changed[rows].sum()), len(rows)


def _check_rows(rows: Mapping[str, np.ndarray], real: np.ndarray, boxes: Sequence[Bounds]) -> None:
    require_labels(np.asarray(rows["label"])[real], int(real.sum()), rows["logits"].shape[1])
    for column, bounds in enumerate(boxes):
        if not rows["boxed"][real][:, column].all():  # nearer to the box than what was refused before, and outside yet
            raise SettingError("images", "outside the bounds", f"images inside {bounds}; np.clip takes rounding away")


def _cost(job: Job, stage: Stage, epsilon: float) -> float:
    """The run time of an attempt at a budget; a truncated attack has only to look at its points after the first."""
    return min(1.0, stage.cost) if job.truncated and epsilon != job.runs[0] else stage.cost


def _hashable(attack: Callable) -> Callable:
    """Settings that hold arrays cannot be a cache's key; such an attack is compiled anew at every call."""
    try:
        hash(attack)
    except TypeError:
        return lambda *arguments: attack(*arguments)
    return attack
