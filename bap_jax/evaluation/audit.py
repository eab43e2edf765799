"""Which checks an evaluation is put to, from the tables that it left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bap_jax.evaluation import checks
from bap_jax.evaluation.controls import Control
from bap_jax.evaluation.jobs import Job
from bap_jax.evaluation.tables import DISTANCES, Rows
from bap_jax.types import NORMS, Check


class Evidence(NamedTuple):
    """All that the checks look at."""

    clean: Rows  # columns [N] of the clean images
    difference: float  # the largest between predictions of the same images
    scale: float  # the largest logit
    neighbours: tuple[float, int, int] | None  # in another order and beside others: largest difference, changed, of how many
    jobs: Sequence[Job]
    tables: Mapping[tuple[str, float], Rows]  # (threat, budget) -> columns [N]
    after: Mapping[tuple[str, float], Sequence[float]]  # (cascade, budget) -> robust accuracy after each stage
    success: Mapping[str, np.ndarray]  # threat -> [E, N]
    accuracy: Mapping[str, np.ndarray]  # threat -> [E]
    num_steps: Mapping[str, int]
    controls: Sequence[Control]

    @property
    def num_examples(self) -> int:
        return len(self.clean["index"])


def checks_of(evidence: Evidence) -> tuple[Check, ...]:
    """Every check that the evidence allows, in reading order."""
    return (
        *_of_the_model(evidence),
        *_of_each_attack(evidence),
        *_of_single_steps(evidence),
        *_of_black_boxes(evidence),
        *_of_minimal_and_fixed(evidence),
        *_of_distances(evidence),
        *_of_controls(evidence),
    )


def _of_the_model(evidence: Evidence) -> list[Check]:
    clean, count = evidence.clean, evidence.num_examples
    gradient = clean["gradient"]
    zero = (gradient == 0) | (clean["margin_gradient"] == 0)
    saturated = ~zero & (gradient < 1e-7 * clean["margin_gradient"])
    return [
        checks.check_once(count - len(np.unique(clean["index"])), count),
        checks.check_logits(int(clean["probabilities"].sum()), count),
        checks.check_finite("finite outputs", int((~clean["finite"]).sum()), count, "the model gives NaN or infinity"),
        checks.check_determinism(evidence.difference, evidence.scale),
        checks.check_neighbours(evidence.neighbours, evidence.scale),
        checks.check_finite("finite input gradients", int((~np.isfinite(gradient)).sum()), count, "the gradient overflows"),
        checks.check_gradients(int(zero.sum()), int(saturated.sum()), count),
    ]


def _of_each_attack(evidence: Evidence) -> list[Check]:
    found = []
    for job in evidence.jobs:
        name = job.name
        tables = [evidence.tables[name, epsilon] for epsilon in job.runs]
        if not tables:
            continue
        merged = {column: np.concatenate([table[column] for table in tables]) for column in tables[0] if column != "images"}
        count = int(merged["attacked"].sum())
        if not job.minimal and not any(stage.anywhere for stage in job.stages):
            found.append(checks.check_points(name, int(merged["outside_ball"].sum()), count, "ball"))
        found.append(checks.check_points(name, int(merged["outside_box"].sum()), count, "box"))
        found.append(checks.check_finite(f"{name}: finite points", int(merged["not_finite"].sum()), count, "NaN gradients"))
        unanswered = "the network gives NaN or infinity there; no point counts as a success by that"
        found.append(checks.check_finite(f"{name}: finite outputs", int(merged["unanswered"].sum()), count, unanswered))
        found.append(checks.check_returned(name, int(merged["lost"].sum()), count))
        if job.truncated:
            found.append(_of_cut_points(evidence, job))
        else:
            found.append(checks.check_monotone(name, job.epsilons, evidence.accuracy[name].tolist(), evidence.num_examples))
        if job.measures_distance:
            distance = evidence.tables[name, math.inf][job.norm]
            found.append(checks.check_found(name, int(np.isinf(distance).sum()), evidence.num_examples))
        elif job.truncated:
            continue
        elif evidence.num_steps.get(name, 0) > 1 and not job.cascade and not job.network.name and not job.black_box:
            left = ~merged["broken"] & merged["attacked"]
            rise, last = (float(merged[column][left].mean()) if left.any() else 0.0 for column in ("rise", "last_rise"))
            found.append(checks.check_converged(name, rise, last, int(left.sum())))
    return found


def _of_cut_points(evidence: Evidence, job: Job) -> Check:
    accuracy = evidence.accuracy[job.name]
    rise = float(np.max(accuracy - np.minimum.accumulate(accuracy)))
    iterated = [name for name, steps in evidence.num_steps.items() if steps > 1]
    real = [j.name for j in evidence.jobs if not (j.truncated or j.black_box) and (j.cascade or j.name in iterated)]
    repaired = max((int(evidence.tables[job.name, epsilon]["repaired"].sum()) for epsilon in job.runs), default=0)
    rivals = [evidence.success[j.name] for j in evidence.jobs if j.name in real and j.norm == job.norm]
    alone = int((evidence.success[job.name] & ~np.any(rivals, axis=0)).sum(axis=1).max()) if rivals else 0
    return checks.check_cut_points(job.name, real, alone, rise, repaired, evidence.num_examples)


def _of_single_steps(evidence: Evidence) -> list[Check]:
    found = []
    tolerance = max(0.005, 1.5 / evidence.num_examples)
    for norm in DISTANCES:
        group = [j for j in evidence.jobs if j.norm == norm and not j.minimal and not j.black_box and not j.cascade]
        for position, epsilon in enumerate(group[0].epsilons if group else ()):
            values = {
                j.name: float(evidence.accuracy[j.name][position]) for j in group if j.name in evidence.num_steps and epsilon > 0
            }
            single = {name: value for name, value in values.items() if evidence.num_steps[name] == 1}
            cut = {j.name for j in group if j.truncated}
            iterative = {name: value for name, value in values.items() if evidence.num_steps[name] > 1 and name not in cut}
            check = checks.check_iterative(single, iterative, tolerance)
            if check is not None:
                found.append(check._replace(name=f"{check.name} at ε = {epsilon:g}"))
    return found


def _of_black_boxes(evidence: Evidence) -> list[Check]:
    """Per example: what falls to an attack without gradients has to fall to one with them."""
    found = []
    for norm in NORMS:
        group = [job for job in evidence.jobs if job.norm == norm and not (job.cascade or job.truncated)]
        white = [job for job in group if not job.black_box]
        for job in (job for job in group if job.black_box and white):
            missed = evidence.success[job.name] & ~np.any([evidence.success[other.name] for other in white], axis=0)
            worst = int(missed.sum(axis=1).max())
            found.append(checks.check_black_box(job.name, worst, evidence.num_examples))
    for job in (job for job in evidence.jobs if job.cascade):
        for place, stage in enumerate(job.stages):
            if place and stage.black_box and not all(other.black_box for other in job.stages[:place]):
                drops = [
                    evidence.after[job.name, epsilon][place - 1] - evidence.after[job.name, epsilon][place]
                    for epsilon in job.runs
                ]
                lost = round(max(drops, default=0.0) * evidence.num_examples)
                found.append(checks.check_black_box(f"{job.name}: {stage.name}", lost, evidence.num_examples))
    return found


def _of_minimal_and_fixed(evidence: Evidence) -> list[Check]:
    """The share of distances beyond ε against the robust accuracy at ε."""
    found = []
    for minimal in (job for job in evidence.jobs if job.minimal):
        for fixed in evidence.jobs:
            if fixed.norm != minimal.norm or fixed.minimal or fixed.black_box or fixed.truncated:
                continue
            pairs = list(zip(evidence.accuracy[minimal.name], evidence.accuracy[fixed.name], strict=True))
            found.append(checks.check_agreement(minimal.name, fixed.name, pairs, evidence.num_examples))
    return found


def _of_distances(evidence: Evidence) -> list[Check]:
    """No minimal distance may exceed the norm of a point that another attack found."""
    found = []
    right = evidence.clean["prediction"] == evidence.clean["label"]
    for job in (job for job in evidence.jobs if job.minimal):
        own = evidence.tables[job.name, math.inf][job.norm]
        others: dict[str, np.ndarray] = {}
        for (name, _), table in evidence.tables.items():
            if name != job.name:
                others[name] = np.minimum(others.get(name, np.inf), table[job.norm])
        if others and right.any():
            nearest = np.min(list(others.values()), axis=0)
            nearer, much = (int((right & (nearest < share * own)).sum()) for share in (0.95, 0.67))
            names = [name for name, distance in others.items() if (right & (distance < 0.95 * own)).any()]
            found.append(checks.check_nearer(job.name, nearer, much, int(right.sum()), names))
        found.append(checks.check_distances(job.name, right, own))
    return found


def _of_controls(evidence: Evidence) -> list[Check]:
    made = {"stronger": checks.check_stronger, "unbounded": checks.check_unbounded, "noise": checks.check_noise}
    return [
        checks.check_shrunk(control.name, control.kept, control.tried)
        if control.kind == "shrunk"
        else made[control.kind](control.name, control.epsilon, control.broken, control.tried)
        for control in evidence.controls
    ]
