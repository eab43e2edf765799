"""Robust accuracy of a model on batches under a set of threats, with the checks that make the numbers believable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.evaluation import audit, compiled, tables
from bap_jax.evaluation.accuracy import clean_accuracy, robust_accuracy
from bap_jax.evaluation.attacker import Attacker
from bap_jax.evaluation.cascade import Cascade, Stage
from bap_jax.evaluation.compiled import Predict
from bap_jax.evaluation.controls import Control, Controls
from bap_jax.evaluation.determinism import among_others, largest_gap
from bap_jax.evaluation.examples import Examples
from bap_jax.evaluation.given import attacks_of, batches_of, key_of, on_host, sources_of
from bap_jax.evaluation.jobs import Job, Radii, Surrogate, budgets_of, check_sizes, jobs_of
from bap_jax.evaluation.result import EvaluationResult, Progress
from bap_jax.evaluation.tables import Rows, Tables
from bap_jax.inputs import require_labels
from bap_jax.mathematics.fast import fast_by_default
from bap_jax.types import Array, Batch, Bounds, Params, Threat

PASSES = 5  # how often one batch is predicted in search of noise


def evaluate_batches(
    predict: Predict,
    params: Params,
    batches: Iterable[Batch] | Batch,
    threats: Sequence[Threat | Cascade] | Threat | Cascade,
    epsilons: Radii,
    key: Array | int,
    *,
    sources: Sequence[Surrogate] | Surrogate = (),
    controls: bool = True,
    keep_examples: bool = False,
    nested: bool = False,
    recall: Callable[[str], Rows | None] | None = None,
    record: Callable[[str, Rows], None] | None = None,
    put: Callable[[Batch], Batch] | None = None,
    fetch: Callable[[Any], Any] = jax.device_get,
    progress: Callable[[Progress], None] | None = None,
) -> EvaluationResult:
    """Attack every example with every threat at every ε, judge the attacked images anew, and check the result.

    What :func:`bap_jax.evaluation.evaluate` does with arrays and names, for batches of one's own making, weights that are an
    argument, and attacks that are made already.

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
      predict: (params, images [B, ...]) to logits [B, K], deterministic, in evaluation mode. On a CPU its
        convolutions are computed by :func:`bap_jax.fast`, unless the environment says BAP_CONV=plain.
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
      nested: an example that an attack broke at one budget counts as broken at that attack's larger ones, whose balls hold the
        same point, and is not attacked there again; attacks that are cut are made at every budget all the same.
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
      >>> from bap_jax.evaluation.threats import named_threat
      >>> from bap_jax.types import Batch
      >>> images = jnp.array([[0.9, 0.1], [0.6, 0.5]])
      >>> batch = Batch(images, jnp.array([0, 0]), jnp.arange(2), jnp.ones(2))
      >>> result = evaluate_batches(lambda scale, x: scale * x, 1.0, [batch], [named_threat("fgsm")], [0.0, 0.1], 0)
      >>> result.clean_accuracy, result.robust_accuracy["fgsm-linf"].tolist()
      (1.0, [1.0, 0.5])
    """
    if not callable(predict):
        raise SettingError("predict", type(predict).__name__, "a function of (params, images) that returns logits")
    threats, sources, key = attacks_of(threats), sources_of(sources), key_of(key)
    budgets = budgets_of(threats, epsilons)
    network = Surrogate("", fast_by_default(predict), params)
    sources = [source._replace(predict=fast_by_default(source.predict)) for source in sources]
    attacker = Attacker(network, key, put or (lambda batch: batch), fetch, keep_examples)
    run = _Evaluation(attacker, recall, record, progress, nested)
    run.look(batches_of(batches), threats, budgets)
    jobs = jobs_of(threats, sources, network, budgets, run.clean["logits"].shape[1])
    run.plan(jobs)
    for job in jobs:
        run.attack(job)
    tried = Controls(attacker, run.examples, run.wrong, run.tables, run.num_steps).run(jobs) if controls else []
    return run.result(jobs, tried)


class _Evaluation:
    """One evaluation under way: the examples, and per attack and budget a table with a row for each."""

    def __init__(self, attacker: Attacker, recall, record, progress, nested: bool):
        self.attacker, self.nested = attacker, nested
        self.recall, self.record = recall or (lambda name: None), record or (lambda name, rows: None)
        self.progress = progress or (lambda reached: None)
        self.tables: Tables = {}
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
        several: list[Examples] = []
        largest: tuple[Batch, Rows, np.ndarray] | None = None
        boxes = tuple(threat.bounds for threat in threats)
        for batch in batches:
            host, real = on_host(batch, boxes, several[0].images.shape[1:] if several else None)
            if not several:
                check_sizes(threats, budgets, host.images.shape[1:])
            rows = self._look(host, boxes)
            _check_rows(rows, real, boxes)
            parts.append({name: np.asarray(values)[real] for name, values in rows.items()})
            several.append(Examples(host.images[real], host.labels[real], host.index[real], len(real)))
            if real.any() and (largest is None or len(real) > len(largest[2])):
                largest = host, rows, real
        if largest is None:
            raise SettingError("batches", 0, "at least one example of weight > 0")
        self._look_again(*largest, boxes)
        self.clean: Rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        images, labels, index = (np.concatenate(columns) for columns in list(zip(*several, strict=True))[:3])
        self.examples = Examples(images, labels, index, max(each.batch_size for each in several))
        self.wrong = self.clean["prediction"] != self.clean["label"]

    def _look(self, batch: Batch, boxes: tuple[Bounds, ...]) -> Rows:
        network, put, fetch = self.attacker.network, self.attacker.put, self.attacker.fetch
        return fetch(compiled.look(network.predict, network.params, put(batch), boxes))

    def _look_again(self, batch: Batch, first: Rows, real: np.ndarray, boxes: tuple[Bounds, ...]) -> None:
        """Again by the same program (noise drawn at run time) and once by another (noise drawn while tracing); then by that one
        in another order, and beside other images.
        """
        placed = self.attacker.put(batch)
        judge = lambda images: self.attacker.judge(placed, images, Bounds())["logits"]  # noqa: E731
        again = [self._look(batch, boxes)["logits"] for _ in range(PASSES - 2)]
        logits, other = first["logits"][real], judge(batch.images)
        self.difference = max(largest_gap(found[real], logits) for found in (*again, other))
        self.scale = float(np.max(np.abs(np.where(np.isfinite(logits), logits, 0)), initial=0.0))
        if len(real) > 1:
            self.neighbours = among_others(judge, np.asarray(batch.images), real, other)

    def plan(self, jobs: Sequence[Job]) -> None:
        costs = [_cost(job, stage, eps) * stage.attempts for job in jobs for stage in job.stages for eps in job.runs]
        self.total = sum(costs) or 1.0

    def attack(self, job: Job) -> None:
        """Every attempt of every stage at every budget, each on the examples that are still robust."""
        smaller: Rows | None = None
        for epsilon in job.runs:
            table = tables.new_table(self.wrong, self.examples.images if self.attacker.keep_examples else None)
            if smaller is not None and self.nested and not job.truncated:
                tables.take_over(table, smaller)
            smaller, after = table, []
            for position, stage in enumerate(job.stages, 1):
                for attempt in range(stage.attempts):
                    self._attempt(job, stage, position, attempt, epsilon, table)
                after.append(1 - float(table["broken"].mean()))
            self.tables[job.name, epsilon], self.after[job.name, epsilon] = table, after
        self.points.clear()

    def _attempt(self, job: Job, stage: Stage, position: int, attempt: int, epsilon: float, table: Rows) -> None:
        left = np.arange(len(self.wrong)) if job.truncated else np.flatnonzero(~table["broken"])
        step = _cost(job, stage, epsilon) / max(len(left), 1)
        label = f"{job.name}: {stage.name}" if job.cascade else job.name
        label += f" {attempt + 1}/{stage.attempts}" if stage.attempts > 1 else ""
        done = 0
        for number, (part, batch) in enumerate(self.examples.batches(left)):
            name = f"{job.name}/{epsilon!r}/{position}/{attempt}/{number}"
            rows = self.recall(name)
            if rows is None:
                if job.truncated:
                    rows = self.attacker.cut(job, epsilon, batch, self._points(job, number, batch), self.wrong[part])
                else:
                    rows = self.attacker.attack(job, stage.attack, attempt, epsilon, batch, len(part))
                self.record(name, rows)
            self.num_steps[job.name] = max(self.num_steps.get(job.name, 0), int(rows["num_steps"]))
            tables.enter(table, part, rows, position)
            done += len(part)
            self.done += step * len(part)
            accuracy = 1 - float(table["broken"].mean())
            self.progress(Progress(label, epsilon, done, len(left), accuracy, min(1.0, self.done / self.total)))
        if not len(left):
            self.done += _cost(job, stage, epsilon)

    def _points(self, job: Job, number: int, batch: Batch) -> Rows:
        """The points of a truncated attack, which are made at the first budget."""
        if number not in self.points:
            name = f"{job.name}/points/{number}"
            found = self.recall(name)
            if found is None:
                found = self.attacker.points(job, batch)
                self.record(name, found)
            self.points[number] = found
        return self.points[number]

    def result(self, jobs: Sequence[Job], controls: Sequence[Control]) -> EvaluationResult:
        correct = ~self.wrong
        success = {job.name: tables.success(self.tables, job, self.wrong) for job in jobs}
        accuracy = {name: np.array([robust_accuracy(correct, row[None]) for row in rows]) for name, rows in success.items()}
        cascades = [job for job in jobs if job.cascade]
        kept = {job.name: tables.attacked_images(self.tables, job) for job in jobs} if self.attacker.keep_examples else {}
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
            worst_case=tables.worst_case(jobs, correct, success),
            index=self.clean["index"],
            label=self.clean["label"],
            prediction=self.clean["prediction"],
            success=success,
            distance={job.name: self.tables[job.name, math.inf][job.norm] for job in jobs if job.measures_distance},
            nearest={norm: np.min([t[norm] for t in self.tables.values()], axis=0) for norm in tables.DISTANCES}
            if self.tables
            else {},
            stages={job.name: tables.after_each_stage(self.after, job, self.wrong) for job in cascades},
            broken_by={job.name: tables.broken_by(self.tables, job, self.wrong) for job in cascades},
            examples={name: images for name, images in kept.items() if images is not None},
            checks=audit.checks_of(evidence),
            repaired={job.name: tables.repaired(self.tables, job) for job in jobs if job.truncated},
            norms={job.name: job.norm for job in jobs},
        )


def _check_rows(rows: Mapping[str, np.ndarray], real: np.ndarray, boxes: Sequence[Bounds]) -> None:
    require_labels(np.asarray(rows["label"])[real], int(real.sum()), rows["logits"].shape[1])
    for column, bounds in enumerate(boxes):
        if not rows["boxed"][real][:, column].all():  # nearer to the box than what was refused before, and outside yet
            raise SettingError("images", "outside the bounds", f"images inside {bounds}; np.clip takes rounding away")


def _cost(job: Job, stage: Stage, epsilon: float) -> float:
    """The run time of an attempt at a budget; a truncated attack has only to look at its points after the first."""
    return min(1.0, stage.cost) if job.truncated and epsilon != job.runs[0] else stage.cost
