"""Evaluating a run: restore the network, attack it, keep what was found beside it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bap_jax.atomic import write_atomic
from bap_jax.checkpoint import CHECKPOINTS, Checkpoints, Network, check_layout, describe, versions
from bap_jax.cli.build import model_of
from bap_jax.cli.journal import Journal
from bap_jax.cli.margins import margin_checks, margins_of
from bap_jax.cli.migrations import config_of
from bap_jax.cli.naming import arm_of, process_of
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.settings import Settings
from bap_jax.cli.sizes import sizes_of
from bap_jax.data import Source, evaluation_batches, load_split
from bap_jax.errors import SettingError
from bap_jax.evaluation import Cascade, Check, EvaluationResult, check_sparsity, evaluate, wilson_interval
from bap_jax.evaluation import Source as AttackedOn
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.parallel import check_batch_size, data_mesh, replicate, shard_batch
from bap_jax.types import Threat

FOLDER = "evaluations"


def settings_of(run: Path) -> Settings:
    """The settings of the run in a folder.

    Raises:
      SettingError: no run is there, or it was written by a version with other settings.
    """
    config = config_of(run)
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in config:
        if name not in known:
            raise SettingError(name, config[name], f"no such setting in this version; {run} was written by another")
    return Settings(**config)


def restore_checkpoint(run: str | Path, which: str) -> tuple[Network, int, dict[str, Any]]:
    """The network of a run, the step it was saved at, and what is known about it.

    Raises:
      SettingError: the run has no such checkpoint.
    """
    folder = Path(run) / CHECKPOINTS
    if not folder.is_dir():
        raise SettingError("--checkpoint", which, f"a checkpoint of {run}; it has none yet")
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = {"last": checkpoints.latest_step, "best": checkpoints.best_step}.get(which, lambda: int(which))()
        if step is None:
            what = "no validated checkpoint yet, which the best one is chosen from" if checkpoints.steps() else "none yet"
            raise SettingError("--checkpoint", which, f"a checkpoint of {run}; it has {what}")
        if step not in checkpoints.steps():
            raise SettingError("--checkpoint", which, f"one of {checkpoints.steps()}, last or best")
        return checkpoints.restore_network(step), step, checkpoints.metadata(step)


@functools.lru_cache
def predictor(model: str, num_classes: int) -> Callable:
    """``((params, model_state), images) -> logits``; the same object for the same model, so that checkpoints share compiles."""
    apply = model_of(model, num_classes).apply

    def predict(network, images):
        params, model_state = network
        return apply(params, model_state, images, train=False)[0].logits

    return predict


def fit(network: Network, model: str, num_classes: int, image_shape: tuple[int, ...], where: str) -> Network:
    """The network in the structure that its model works with.

    Raises:
      CheckpointError: it is the network of another model, or of other data; the first leaf that differs is named.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jax.numpy.float32)
    params, model_state = jax.eval_shape(model_of(model, num_classes).init, jax.random.key(0), images)
    wanted, stored = ({"params": p, "model_state": s} for p, s in ((params, model_state), (network.params, network.model_state)))
    check_layout(describe(stored), describe(wanted), where)
    leaves = dict(zip(describe(stored), jax.tree.leaves(stored), strict=True))
    fitted = jax.tree.unflatten(jax.tree.structure(wanted), [leaves[path] for path in describe(wanted)])
    return network._replace(**fitted)


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
      progress: see :func:`bap_jax.evaluation.evaluate`.

    Returns:
      What the JSON file holds: ``rows`` for a report, ``checks``, the plan, versions.

    Raises:
      SettingError: a plan or run that makes no sense.
      CheckpointError: the checkpoint is not of the run's model; the first leaf that differs is named.
    """
    plan.check()
    settings = settings_of(run)
    network, step, about = restore_checkpoint(run, plan.checkpoint)
    mesh = data_mesh(devices)
    check_batch_size(batch_size, mesh, "--batch-size")
    if dataset is None:
        dataset = load_split(
            settings.data,
            plan.split,  # type: ignore[arg-type]
            data_dir=data_dir or settings.data_dir,
            image_size=settings.image_size,
            train_split=settings.train_split,
            test_split=settings.test_split,
        )
    where = f"the checkpoint of step {step} in {run}"
    network = fit(network, settings.model, dataset.num_classes, dataset.image_shape, where)
    batch_size = min(batch_size, -(-(plan.limit or len(dataset)) // mesh.size) * mesh.size)
    weights = (network.params, network.model_state)
    sizes, counted = sizes_of(network, predictor(settings.model, dataset.num_classes), dataset.image_shape)
    threats = plan.threats(dataset.bounds)
    place = functools.partial(replicate, mesh) if mesh.size > 1 else lambda weights: weights
    name, folder = plan_name(plan), Path(run) / FOLDER
    header = {"plan": dataclasses.asdict(plan), "step": step, "batch_size": batch_size, "devices": mesh.size}
    header |= {"examples": save_examples, "versions": versions(), "weights": _fingerprint(weights)}
    journal = Journal(folder / f"{name}.partial", header)
    result = evaluate(
        predictor(settings.model, dataset.num_classes),
        place(weights),
        evaluation_batches(dataset, batch_size, limit=plan.limit),
        threats,
        plan.epsilons(),
        jax.random.key(plan.seed),
        sources=[_source(other.strip(), dataset, place) for other in (plan.transfer_from or "").split(",") if other.strip()],
        controls=plan.controls,
        keep_examples=save_examples,
        recall=journal.recall,
        record=journal.record,
        put=functools.partial(shard_batch, mesh) if mesh.size > 1 else None,
        progress=progress,
    )
    margins = _margin_checks(result, plan, settings, weights, dataset, batch_size, threats) if plan.controls else []
    record = {
        "run": str(run),
        "step": step,
        "finished": bool(about.get("finished")),
        "plan": dataclasses.asdict(plan),
        "rows": _rows(result, settings, network, sizes, plan, threats),
        "stages": _stages(result),
        "distances": {threat: distance_summary(result.distance[threat]) for threat in result.distance},
        "checks": [check._asdict() for check in (*result.checks, *_sparsity_check(settings, network, about), counted, *margins)],
        "versions": versions(),
    }
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{name}.npz", _npz(_per_example(result)))
    if save_examples:
        write_atomic(folder / f"{name}.examples.npz", _npz({"index": result.index, **result.examples}))
    write_atomic(folder / f"{name}.json", json.dumps(record, indent=1))
    journal.clear()
    return record


def stored_evaluation(run: Path, plan: AttackPlan, step: int) -> dict[str, Any] | None:
    """What :func:`evaluate_run` wrote for this plan and step, if it did."""
    path = Path(run) / FOLDER / f"{plan_name(plan)}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record if record["plan"] == dataclasses.asdict(plan) and record["step"] == step else None


def plan_name(plan: AttackPlan) -> str:
    """A file name for a plan: readable, and different for different plans."""
    text = json.dumps(dataclasses.asdict(plan), sort_keys=True)
    readable = plan.attack.replace(" ", "").replace(",", "+").replace(":", ".").replace("/", ".")[:60]
    return f"{readable}-{plan.norm.replace(',', '+')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def distance_summary(distances: np.ndarray) -> dict[str, float | int | None]:
    """The median and quartiles of minimal distances over the examples that were right, those without a point counted as infinite.

    Args:
      distances: [N], 0 = wrong already, inf = nothing found.

    Returns:
      ``median``, ``quarter``, ``three_quarters`` (None where infinite), and the counts ``attacked``, ``not_found``, ``wrong``.

    Example:
      >>> distance_summary(np.array([0.0, 0.1, 0.2, 0.3, np.inf]))["median"]
      0.2
    """
    attacked = distances[distances > 0]
    shares = {"quarter": 0.25, "median": 0.5, "three_quarters": 0.75}
    found = {n: float(np.quantile(attacked, share, method="inverted_cdf")) for n, share in shares.items() if attacked.size}
    values = {name: found[name] if np.isfinite(found.get(name, np.inf)) else None for name in shares}
    counts = {"attacked": attacked.size, "not_found": int(np.isinf(attacked).sum()), "wrong": int((distances == 0).sum())}
    return {**values, **counts}


def _sparsity_check(settings: Settings, network: Network, about: dict[str, Any]) -> list[Check]:
    """Of a finished magnitude-pruned network; before the end, and by other methods, it may be what it is."""
    if settings.pruner != "magnitude" or not about.get("finished"):
        return []
    return [check_sparsity(settings.final_sparsity, float(measured_sparsity(network.masks)))]


def _margin_checks(
    result: EvaluationResult,
    plan: AttackPlan,
    settings: Settings,
    weights: Any,
    dataset: Source,
    batch_size: int,
    threats: Sequence[Threat | Cascade],
) -> list[Check]:
    """On the first batch, if a minimal-norm attack measured distances in the norm of a blind run's budget."""

    def measure() -> np.ndarray:
        batch = next(iter(evaluation_batches(dataset, batch_size, limit=plan.limit)))
        predict = predictor(settings.model, dataset.num_classes)
        return margins_of(settings, predict, weights, batch, dataset.bounds)[np.asarray(batch.weight) > 0]

    norms = {threat.name: threat.norm for threat in threats}
    return margin_checks(settings, measure, result.distance, norms, math.prod(dataset.image_shape))


def _source(run: str, dataset: Source, place: Callable) -> AttackedOn:
    """The newest network of another run, to make adversarial examples on."""
    settings = settings_of(Path(run))
    network, step, _ = restore_checkpoint(run, "last")
    where = f"the checkpoint of step {step} in {run}"
    network = fit(network, settings.model, dataset.num_classes, dataset.image_shape, where)
    model = predictor(settings.model, dataset.num_classes)
    return AttackedOn(Path(run).name, model, place((network.params, network.model_state)))


def _fingerprint(weights: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(weights):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


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


def arm_at(settings: Settings, checkpoint: str) -> str:
    """How the network of a checkpoint is called in tables."""
    return arm_of(settings) + ("" if checkpoint == "last" else f", checkpoint {checkpoint}")


def _rows(
    result: EvaluationResult,
    settings: Settings,
    network: Network,
    sizes: dict[str, Any],
    plan: AttackPlan,
    threats: Sequence[Threat | Cascade],
) -> list[dict[str, Any]]:
    common = {
        "data": settings.data,
        "model": settings.model,
        "arm": arm_at(settings, plan.checkpoint),
        "process": process_of(settings),
        "sparsity": settings.final_sparsity if settings.pruner != "dense" else 0.0,
        "seed": settings.seed,
        "split": plan.split,
        "num_examples": result.num_examples,
        "budget": settings.budget,
        "sparsity_measured": float(measured_sparsity(network.masks)),
        **sizes,
    }

    def row(attack: str, norm: str, epsilon: float, accuracy: float) -> dict[str, Any]:
        low, high = wilson_interval(accuracy, result.num_examples)
        measured = {"attack": attack, "norm": norm, "epsilon": epsilon, "accuracy": accuracy}
        return {**common, **measured, "low": low, "high": high}

    rows = [row("clean", "", 0.0, result.clean_accuracy)]
    norms = {threat.name: threat.norm for threat in threats}
    for name, accuracies in result.robust_accuracy.items():
        norm = norms.get(name) or norms[name.partition(" from ")[0]]
        for place, (epsilon, accuracy) in enumerate(zip(result.epsilons[name], accuracies, strict=True)):
            repaired = {"repaired": float(result.repaired[name][place])} if name in result.repaired else {}
            if epsilon > 0:
                rows.append(row(name.replace(f"-{norm}", ""), norm, epsilon, float(accuracy)) | repaired)
    for norm, accuracies in result.worst_case.items():
        group = [name for name in norms if norms[name] == norm]
        if len(group) > 1:
            for epsilon, accuracy in zip(result.epsilons[group[0]], accuracies, strict=True):
                if epsilon > 0:
                    attack = "worst of " + ", ".join(name.replace(f"-{norm}", "") for name in group)
                    rows.append(row(attack, norm, epsilon, float(accuracy)))
    return rows


def _per_example(result: EvaluationResult) -> dict[str, np.ndarray]:
    """One entry per example: position, label, clean prediction, and per threat success, distance, the stage that fooled it."""
    arrays: dict[str, Any] = {"index": result.index, "label": result.label, "prediction": result.prediction}
    for threat, success in result.success.items():
        arrays[f"success/{threat}"] = success
        arrays[f"epsilon/{threat}"] = np.asarray(result.epsilons[threat])
    arrays |= {f"distance/{threat}": distance for threat, distance in result.distance.items()}
    arrays |= {f"nearest/{norm}": distance for norm, distance in result.nearest.items()}
    return arrays | {f"broken_by/{name}": stage for name, stage in result.broken_by.items()}


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
