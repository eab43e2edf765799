"""The tables of an evaluation: one for each attack and budget with a row for every example, and what is read off them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bap_jax.evaluation.accuracy import robust_accuracy
from bap_jax.evaluation.jobs import Job
from bap_jax.types import NORMS, Norm

Rows = dict[str, np.ndarray]  # columns of a table, each [N] or, of a batch, [n]
Tables = dict[tuple[str, float], Rows]  # (attack, budget) -> columns [N]
DISTANCES: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")  # rms is l2 in another unit
FLAGS = ("outside_ball", "outside_box", "not_finite", "unanswered", "lost")


def new_table(wrong: np.ndarray, images: np.ndarray | None = None) -> Rows:
    """A table before any attack: the examples that are wrong without one are broken.

    Args:
      wrong: [N] bool.
      images: [N, ...] the clean images, if the attacked ones are to be kept.
    """
    count = len(wrong)
    return {
        "broken": wrong.copy(),
        "broken_by": np.where(wrong, 0, -1).astype(np.int8),
        "attacked": np.zeros(count, bool),
        **{column: np.zeros(count, bool) for column in (*FLAGS, "repaired")},
        **{column: np.zeros(count, np.float32) for column in ("rise", "last_rise")},
        **{norm: np.where(wrong, 0, np.inf).astype(np.float32) for norm in NORMS},
        **({} if images is None else {"images": images.copy()}),
    }


def enter(table: Rows, part: np.ndarray, rows: Rows, position: int) -> None:
    """Writes what an attack made of some examples into their rows.

    Args:
      table: changed in place.
      part: [n] the examples.
      rows: the attack's columns, each [n].
      position: of its stage, from 1.
    """
    hit = rows["hit"]
    table["attacked"][part] = True
    table["broken"][part] |= hit
    table["broken_by"][part[hit]] = position
    for column in FLAGS:
        table[column][part] |= rows[column]
    for column in ("rise", "last_rise", "repaired"):
        table[column][part] = rows.get(column, 0)
    for norm in NORMS:
        table[norm][part[hit]] = rows[norm][hit]
    if "images" in table:
        table["images"][part] = rows["images"]


def take_over(table: Rows, smaller: Rows) -> None:
    """Enters the examples that a smaller budget broke as broken, by the points that were found there; not as attacked.

    Args:
      table: of a budget, new; changed in place.
      smaller: of the same attack at a smaller budget.
    """
    held = smaller["broken"]
    for column in ("broken", "broken_by", *NORMS, *(["images"] if "images" in table else [])):
        table[column][held] = smaller[column][held]


def success(tables: Tables, job: Job, wrong: np.ndarray) -> np.ndarray:
    """[E, N] bool: misclassified at a budget, be it without an attack."""
    if job.minimal:
        distance = tables[job.name, math.inf][job.norm]
        broken = {epsilon: wrong | (distance <= epsilon * (1 + 1e-6)) for epsilon in job.epsilons}
    else:
        broken = {epsilon: tables[job.name, epsilon]["broken"] for epsilon in job.runs}
    return np.stack([broken[epsilon] if epsilon > 0 else wrong for epsilon in job.epsilons])


def broken_by(tables: Tables, job: Job, wrong: np.ndarray) -> np.ndarray:
    """[E, N] int8: the stage, from 1, that fooled an example; 0 = wrong already, −1 = robust."""
    unattacked = np.where(wrong, 0, -1).astype(np.int8)
    return np.stack([tables[job.name, epsilon]["broken_by"] if epsilon > 0 else unattacked for epsilon in job.epsilons])


def repaired(tables: Tables, job: Job) -> np.ndarray:
    """[E]: the share of examples that are wrong without the attack and right at its cut point."""
    return np.array([tables[job.name, epsilon]["repaired"].mean() if epsilon > 0 else 0.0 for epsilon in job.epsilons])


def after_each_stage(after: Mapping[tuple[str, float], Sequence[float]], job: Job, wrong: np.ndarray) -> dict[str, np.ndarray]:
    """Stage -> [E] robust accuracy after it."""
    clean = 1 - float(wrong.mean())
    return {
        stage.name: np.array([after[job.name, epsilon][place] if epsilon > 0 else clean for epsilon in job.epsilons])
        for place, stage in enumerate(job.stages)
    }


def nearest(tables: Tables) -> dict[Norm, np.ndarray]:
    """Norm -> [N] the smallest norm of all adversarial points that any attack found; {} where nothing was run."""
    if not tables:
        return {}
    return {norm: np.min([table[norm] for table in tables.values()], axis=0) for norm in DISTANCES}


def attacked_images(tables: Tables, job: Job) -> np.ndarray | None:
    """[E or 1, N, ...] what was kept of the attacked images; None where the only run is one without a budget."""
    kept = [tables[job.name, epsilon]["images"] for epsilon in job.runs if not job.is_uncut(epsilon)]
    return np.stack(kept) if kept else None


def worst_case(jobs: Sequence[Job], correct: np.ndarray, success: Mapping[str, np.ndarray]) -> dict[Norm, np.ndarray]:
    """Norm -> [E] the share that is correct under every attack of that norm."""
    groups: dict[Norm, list[np.ndarray]] = {}
    for job in jobs:
        groups.setdefault(job.norm, []).append(success[job.name])
    return {
        norm: np.array([robust_accuracy(correct, at_epsilon) for at_epsilon in np.stack(group, axis=1)])
        for norm, group in groups.items()
    }
