"""Evaluating a run against attacks that want a class of their own, or the label out of the k likeliest."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint import versions
from bap_jax.data import Source, evaluation_batches
from bap_jax.errors import SettingError
from bap_jax.evaluation import Check, GoalResult, Progress, evaluate_goal, wilson_interval
from bap_jax.runs.cost import cost_of
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import FOLDER, common_columns, metrics_until, npz_of, plan_name
from bap_jax.runs.restore import Stored


def evaluate_goals(
    run: Path,
    plan: AttackPlan,
    stored: Stored,
    net: Deployed,
    dataset: Source,
    batch_size: int,
    sizes: dict[str, Any],
    counted: Check,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """What :func:`bap_jax.runs.evaluate.evaluate_run` does with a plan that has a goal: every attack at every radius, all images.

    An accuracy of its rows is the share of all images that withstand: for which the attack did not get what it wanted. The npz
    has ``withstands/ATTACK`` and ``wanted/ATTACK``, the class wanted or the label that was to leave.

    Args:
      run: the run folder.
      plan: with ``goal`` or ``top_k``.
      stored, net: of the run.
      dataset: what is attacked.
      batch_size: examples attacked at once.
      sizes, counted: of the network, see :func:`bap_jax.runs.sizes.sizes_of`.
      progress: told after every batch at every radius.

    Raises:
      SettingError: as :func:`bap_jax.evaluation.evaluate_goal`.
    """
    settings = stored.settings
    if plan.top_k >= dataset.num_classes:
        raise SettingError("--top-k", plan.top_k, f"fewer than the {dataset.num_classes} classes of {settings.data}")
    epsilons, goal = plan.epsilons(), plan.goal or f"top-{plan.top_k}"
    threats = plan.threats_by_attack(dataset.bounds, dataset.image_shape, dataset.num_classes)
    results: dict[str, GoalResult] = {}
    for place, (name, threat) in enumerate(threats):

        def tell(done: int, place: int = place, label: str = threat.name) -> None:
            total = min(plan.limit or len(dataset), len(dataset))
            fraction = (place + done / total) / len(threats)
            if progress is not None:
                progress(Progress(f"{label}, {goal}", math.inf, done, total, math.nan, fraction))

        results[threat.name] = evaluate_goal(
            net.predict,
            net.weights,
            evaluation_batches(dataset, batch_size, limit=plan.limit),
            name,
            epsilons[threat.norm],
            plan.seed,
            targets=plan.targets,
            top_k=plan.top_k,
            norm=threat.norm,
            bounds=dataset.bounds,
            progress=tell,
            **plan.settings_of(name, dataset.image_shape),
        )
    first = next(iter(results.values()))
    common = common_columns(settings, net.network, sizes, plan.checkpoint, plan.split) | {"num_examples": first.num_examples}

    def row(attack: str, norm: str, epsilon: float, accuracy: float) -> dict[str, Any]:
        low, high = wilson_interval(accuracy, first.num_examples)
        return common | {"attack": attack, "norm": norm, "epsilon": epsilon, "accuracy": accuracy, "low": low, "high": high}

    rows, arrays = [row("clean", "", 0.0, float(first.correct.mean()))], _shared(first)
    for (_, threat), (label, result) in zip(threats, results.items(), strict=True):
        norm, attack = threat.norm, f"{label.removesuffix(f'-{threat.norm}')} {goal}"
        rows.append(row(attack, norm, 0.0, 1 - result.unattacked))
        told = zip(result.epsilons, result.success, strict=True)
        rows += [row(attack, norm, epsilon, 1 - success) for epsilon, success in told if epsilon > 0]
        arrays |= {f"withstands/{label}": ~result.reached, f"epsilon/{label}": np.asarray(result.epsilons)}
        arrays |= {f"wanted/{label}": result.wanted}
    record = {
        "run": str(run),
        "step": stored.step,
        "finished": bool(stored.about.get("finished")),
        "phase": stored.about.get("phase_name"),
        "plan": plan.as_dict(),
        "rows": rows,
        "cost": cost_of(settings, metrics_until(run, stored.step)),
        "stages": {},
        "distances": {},
        "checks": [counted._asdict()],
        "versions": versions(),
    }
    folder, name = Path(run) / FOLDER, plan_name(plan)
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{name}.npz", npz_of(arrays))
    write_atomic(folder / f"{name}.json", json_text(record, indent=1))
    return record


def _shared(result: GoalResult) -> dict[str, np.ndarray]:
    return {"index": result.positions, "label": result.labels, "correct": result.correct}
