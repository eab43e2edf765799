"""Evaluating a run: restore the network, attack it, keep what was found beside it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint import (
    Network,
    versions,
)
from bap_jax.checkpoint.journal import Journal
from bap_jax.data import Source, evaluation_batches
from bap_jax.evaluation import (
    Cascade,
    Check,
    EvaluationResult,
    check_sparsity,
    evaluate_batches,
    local_optimality,
    passes_of_threat,
)
from bap_jax.evaluation import Surrogate as AttackedOn
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.parallel import check_batch_size, data_mesh, replicate, shard_batch
from bap_jax.plugins import is_import_path
from bap_jax.runs.cost import cost_of
from bap_jax.runs.datasets import split_of
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.goals import evaluate_goals
from bap_jax.runs.margins import margin_checks, margins_of
from bap_jax.runs.overfitting import overfitting_checks
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import FOLDER, common_columns, distance_summary, fingerprint, metrics_until, npz_of, plan_name
from bap_jax.runs.restore import NETWORK, settings_of, stored_network
from bap_jax.runs.settings import Settings
from bap_jax.runs.sizes import sizes_of
from bap_jax.runs.trust import NOTHING, Trust
from bap_jax.types import Bounds, Threat

COUNTED = 8  # images that passes are counted on


def evaluate_run(
    run: Path,
    plan: AttackPlan,
    *,
    dataset: Source | None = None,
    data_dir: str | None = None,
    batch_size: int = 256,
    devices: int | None = 1,
    save_examples: bool = False,
    progress: Callable | None = None,
    trust: Trust = NOTHING,
) -> dict[str, Any]:
    """Evaluates a run's network and writes ``evaluations/NAME.json`` and ``.npz`` (one entry per example) into its folder.

    What is found on the way is kept in ``evaluations/NAME.partial/`` until it is done: the same call goes on where it stopped.

    Args:
      run: a run folder.
      plan: what to attack with.
      dataset: the split of the plan, if it is loaded already.
      data_dir: where prepared data sets are, if not where the run found them.
      batch_size: examples attacked at once.
      devices: how many devices; None for all.
      save_examples: write the attacked images too, ``evaluations/NAME.examples.npz``.
      progress: see :func:`bap_jax.evaluation.evaluate_batches`.
      trust: which code the configurations of this run and of those that the plan transfers from may name.

    Returns:
      What the JSON file holds: ``rows`` for a report, ``checks``, the plan, versions.

    Raises:
      SettingError: a plan or run that makes no sense.
      CheckpointError: the checkpoint is not of the run's model; the first leaf that differs is named.
    """
    plan.check()
    settings = settings_of(Path(run), trust, uses=NETWORK)
    if not is_import_path(settings.data):
        plan.check_radii(Bounds())
    stored = stored_network(run, plan.checkpoint, trust)
    step, about = stored.step, stored.about
    mesh = data_mesh(devices)
    check_batch_size(batch_size, mesh, "--batch-size")
    if dataset is None:
        dataset = split_of(settings, plan.split, data_dir)
    plan.check_radii(dataset.bounds, dataset.image_shape)
    net = stored.on(dataset)
    batch_size = min(batch_size, -(-(plan.limit or len(dataset)) // mesh.size) * mesh.size)
    sizes, counted = sizes_of(net.network, net.predict, dataset.image_shape, settings.deployed_bits())
    threats = plan.threats(dataset.bounds, dataset.image_shape, dataset.num_classes)
    place = functools.partial(replicate, mesh) if mesh.size > 1 else lambda weights: weights
    if plan.has_goal:
        return evaluate_goals(run, plan, stored, net, dataset, batch_size, sizes, counted, progress)
    name, folder = plan_name(plan), Path(run) / FOLDER
    header = {"plan": plan.as_dict(), "step": step, "batch_size": batch_size, "devices": mesh.size}
    header |= {"examples": save_examples, "versions": versions(), "weights": fingerprint(net.weights)}
    journal = Journal(folder / f"{name}.partial", header)
    result = evaluate_batches(
        net.predict,
        place(net.weights),
        evaluation_batches(dataset, batch_size, limit=plan.limit),
        threats,
        plan.epsilons(),
        jax.random.key(plan.seed),
        sources=[
            _source(other.strip(), dataset, place, trust) for other in (plan.transfer_from or "").split(",") if other.strip()
        ],
        controls=plan.controls and plan.region is None,  # which try other attacks, everywhere
        keep_examples=save_examples,
        recall=journal.recall,
        record=journal.record,
        put=functools.partial(shard_batch, mesh) if mesh.size > 1 else None,
        progress=progress,
    )
    margins = _margin_checks(result, plan, settings, net, dataset, batch_size, threats) if plan.controls else []
    checks = [*result.checks, *_sparsity_check(settings, net.network, about), counted, *margins]
    lines = metrics_until(run, step)
    checks += overfitting_checks(settings, lines)
    record = {
        "run": str(run),
        "step": step,
        "finished": bool(about.get("finished")),
        "phase": about.get("phase_name"),
        "plan": plan.as_dict(),
        "rows": _rows(result, settings, net.network, sizes, plan),
        "cost": cost_of(settings, lines),
        "stages": _stages(result),
        "distances": {threat: distance_summary(result.distance[threat]) for threat in result.distance},
        "optimality": _optimality(result, threats),
        "passes": _passes(plan, threats, net, dataset, batch_size),
        "checks": [check._asdict() for check in checks],
        "versions": versions(),
    }
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{name}.npz", npz_of(_per_example(result)))
    if save_examples:
        write_atomic(folder / f"{name}.examples.npz", npz_of({"index": result.index, **result.examples}))
    write_atomic(folder / f"{name}.json", json_text(record, indent=1))
    journal.clear()
    return record


def _sparsity_check(settings: Settings, network: Network, about: dict[str, Any]) -> list[Check]:
    """Of a finished magnitude-pruned network; before the end, and by other methods, it may be what it is."""
    if settings.pruner != "magnitude" or not about.get("finished"):
        return []
    return [check_sparsity(settings.final_sparsity, float(measured_sparsity(network.masks)))]


def _optimality(result: EvaluationResult, threats: Sequence[Threat | Cascade]) -> dict[str, float]:
    """Of every minimal-norm attack: how near it comes to the nearest points that any attack of the evaluation found."""
    norms = {threat.name: threat.norm for threat in threats}
    near = {name: result.nearest[norms[name]] for name in result.distance if norms[name] in result.nearest}
    return {name: local_optimality(result.distance[name], np.minimum(near[name], result.distance[name])) for name in near}


def _passes(
    plan: AttackPlan, threats: Sequence[Threat | Cascade], net: Deployed, dataset: Source, batch_size: int
) -> dict[str, dict[str, float]]:
    """Of every minimal-norm attack, if asked for: the passes per image that it makes on the first few."""
    if not (plan.count_passes or plan.max_passes):
        return {}
    batch = next(iter(evaluation_batches(dataset, min(batch_size, COUNTED), limit=min(COUNTED, plan.limit or COUNTED))))
    real = np.asarray(batch.weight) > 0
    images, labels = jax.numpy.asarray(np.asarray(batch.images)[real]), jax.numpy.asarray(np.asarray(batch.labels)[real])
    found = {}
    for threat in threats:
        if isinstance(threat, Threat) and threat.minimal:
            logits_fn = functools.partial(net.predict, net.weights)
            passes = passes_of_threat(threat, logits_fn, images, labels, jax.random.key(plan.seed))
            found[threat.name] = passes._asdict()
    return found


def _margin_checks(
    result: EvaluationResult,
    plan: AttackPlan,
    settings: Settings,
    net: Deployed,
    dataset: Source,
    batch_size: int,
    threats: Sequence[Threat | Cascade],
) -> list[Check]:
    """On the first batch, if a minimal-norm attack measured distances in the norm of a blind run's budget."""

    def measure() -> np.ndarray:
        batch = next(iter(evaluation_batches(dataset, batch_size, limit=plan.limit)))
        return margins_of(settings, net.predict, net.weights, batch, dataset.bounds)[np.asarray(batch.weight) > 0]

    norms = {threat.name: threat.norm for threat in threats}
    return margin_checks(settings, measure, result.distance, norms, math.prod(dataset.image_shape))


def _source(run: str, dataset: Source, place: Callable, trust: Trust) -> AttackedOn:
    """The newest network of another run, to make adversarial examples on."""
    net = stored_network(run, "last", trust, uses=("model",)).on(dataset)
    return AttackedOn(Path(run).name, net.predict, place(net.weights))


def _stages(result: EvaluationResult) -> dict[str, list[dict[str, Any]]]:
    """Of every cascade: the robust accuracy after each of its attacks, as AutoAttack prints it."""
    return {
        name: [
            {"stage": stage, "epsilon": epsilon, "accuracy": float(accuracy)}
            for stage, accuracies in stages.items()
            for epsilon, accuracy in zip(result.epsilons[name], accuracies, strict=True)
            if epsilon > 0
        ]
        for name, stages in result.stages.items()
    }


def _rows(
    result: EvaluationResult,
    settings: Settings,
    network: Network,
    sizes: dict[str, Any],
    plan: AttackPlan,
) -> list[dict[str, Any]]:
    common = common_columns(settings, network, sizes, plan.checkpoint, plan.split)
    return [{**common, **measured} for measured in result.to_rows()]


def _per_example(result: EvaluationResult) -> dict[str, np.ndarray]:
    """One entry per example: position, label, clean prediction, and per threat success, distance, the stage that fooled it."""
    arrays: dict[str, Any] = {"index": result.index, "label": result.label, "prediction": result.prediction}
    for threat, success in result.success.items():
        arrays[f"success/{threat}"] = success
        arrays[f"epsilon/{threat}"] = np.asarray(result.epsilons[threat])
    arrays |= {f"distance/{threat}": distance for threat, distance in result.distance.items()}
    arrays |= {f"nearest/{norm}": distance for norm, distance in result.nearest.items()}
    return arrays | {f"broken_by/{name}": stage for name, stage in result.broken_by.items()}
