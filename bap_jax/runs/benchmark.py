"""A run under the protocol of the adversarial pruning benchmark: measured, kept as an evaluation, made ready to hand in."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint import versions
from bap_jax.checkpoint.journal import Journal
from bap_jax.data import Source, evaluation_batches, make_batch
from bap_jax.errors import SettingError
from bap_jax.evaluation import Progress, SurveyResult, area_under_curve, survey_protocol, wilson_interval
from bap_jax.evaluation.survey import EPSILON, HO_FMN, NOMINAL, Split
from bap_jax.methods import METHODS, method_of
from bap_jax.parallel import check_batch_size, data_mesh, replicate, shard_batch
from bap_jax.report.submission import (
    ARCHITECTURES,
    About,
    Measured,
    about_of,
    check_entry,
    issue_text,
    model_info,
    taxonomy_entry,
)
from bap_jax.runs.benchmark_plan import NAME, BenchmarkPlan
from bap_jax.runs.cost import cost_of
from bap_jax.runs.datasets import split_of
from bap_jax.runs.naming import network_name
from bap_jax.runs.records import FOLDER, common_columns, distance_summary, fingerprint, metrics_until, npz_of
from bap_jax.runs.restore import stored_network
from bap_jax.runs.sizes import sizes_of
from bap_jax.runs.stored import read_evaluation
from bap_jax.runs.trust import NOTHING, Trust
from bap_jax.runs.weights import export_run
from bap_jax.types import Batch, Taxonomy

NUM_IMAGES = 10_000  # that the benchmark measures on


def benchmark_run(
    run: Path,
    plan: BenchmarkPlan,
    *,
    data_dir: str | None = None,
    batch_size: int = 256,
    devices: int | None = 1,
    progress: Callable[[Progress], None] | None = None,
    trust: Trust = NOTHING,
) -> dict[str, Any]:
    """Measures a run as the benchmark does, and keeps that as an evaluation, ``evaluations/benchmark-….json`` and ``.npz``.

    What is there of the same plan and weights is not measured again; what was cut off goes on where it stopped.

    Args:
      run: a run folder.
      plan: what of the protocol is run.
      data_dir: where prepared data sets are, if not where the run found them.
      batch_size: images attacked at once.
      devices: how many devices; None for all.
      progress: told of the whole protocol, see :func:`bap_jax.evaluation.survey_protocol`.
      trust: which code the run's configuration may name.

    Returns:
      What the JSON file holds: ``rows`` for a report, ``checks``, ``survey``: numbers and what differs from the protocol.

    Raises:
      SettingError, CheckpointError: as :func:`bap_jax.runs.evaluate.evaluate_run`.
    """
    plan.check()
    stored = stored_network(run, plan.checkpoint, trust)
    settings, about = stored.settings, stored.about
    mesh = data_mesh(devices)
    check_batch_size(batch_size, mesh, "--batch-size")
    dataset = split_of(settings, "test", data_dir)
    if dataset.num_classes < 4:
        raise SettingError("data", settings.data, "at least four classes, which AutoAttack's targeted attacks need")
    net = stored.on(dataset)
    count = min(plan.limit or NUM_IMAGES, NUM_IMAGES, len(dataset))
    split = plan.split(len(dataset))
    told = {"attack": NAME, "norm": "linf", "epsilon": f"{EPSILON},8/255", "split": "test", **dataclasses.asdict(plan)}
    header = {"plan": told, "step": stored.step, "weights": fingerprint(net.weights), "versions": versions()}
    folder = Path(run) / FOLDER
    path = folder / f"{plan.name}.json"
    if path.exists():
        record = read_evaluation(path)
        if all(record.get(name) == header[name] for name in ("plan", "step", "weights")):
            return record | {"run": str(run)}
    size = min(batch_size, -(-count // mesh.size) * mesh.size)
    journal = Journal(folder / f"{plan.name}.partial", header | {"batch_size": size, "devices": mesh.size})
    place = functools.partial(replicate, mesh) if mesh.size > 1 else lambda weights: weights
    result = survey_protocol(
        net.predict,
        place(net.weights),
        evaluation_batches(dataset, size, limit=count),
        _batches(dataset, split.tuning, mesh.size),
        _batches(dataset, _chunks(split.measured, size), mesh.size),
        jax.random.key(plan.seed),
        bounds=dataset.bounds,
        counts=(count, sum(map(len, split.tuning)), len(split.measured)),
        seed=plan.seed,
        controls=plan.controls,
        put=functools.partial(shard_batch, mesh) if mesh.size > 1 else None,
        recall=journal.recall,
        record=journal.record,
        progress=progress,
    )
    sizes, counted = sizes_of(net.network, net.predict, dataset.image_shape)
    plain = common_columns(settings, net.network, sizes, checkpoint=plan.checkpoint, split="test")
    changed = settings.model_options.changed()
    survey = {
        "architecture": network_name(settings) if changed.keys() - {"mean", "std"} else settings.model,
        "clean": result.attacked.clean_accuracy,
        "autoattack": float(result.attacked.robust_accuracy["autoattack-linf"][0]),
        "autoattack_nominal": float(result.attacked.robust_accuracy["autoattack-linf"][1]),
        "ho_fmn": float(np.mean(result.distances > NOMINAL)),
        "num_attacked": result.attacked.num_examples,
        "num_measured": result.measured.num_examples,
        "configuration": result.tuned.configuration._asdict(),
        "trials": [trial._asdict() for trial in result.tuned.trials],
        "area_under_curve": area_under_curve(result.curve),
        "normalised": not changed.keys().isdisjoint(("mean", "std")),
        "differs": _differences(plan, dataset, count, split),
    }
    record = header | {
        "run": str(run),
        "finished": bool(about.get("finished")),
        "phase": about.get("phase_name"),
        "rows": _rows(result, plain),
        "cost": cost_of(settings, metrics_until(run, stored.step)),
        "stages": {
            "autoattack-linf": [
                {"stage": stage, "epsilon": epsilon, "accuracy": float(accuracy)}
                for stage, accuracies in result.attacked.stages["autoattack-linf"].items()
                for epsilon, accuracy in zip((EPSILON, NOMINAL), accuracies, strict=True)
            ]
        },
        "distances": {HO_FMN: distance_summary(result.distances)},
        "checks": [check._asdict() for check in (*result.attacked.checks, *result.measured.checks, counted)],
        "survey": survey,
    }
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{plan.name}.npz", npz_of(_arrays(result)))
    write_atomic(path, json_text(record, indent=1))
    journal.clear()
    return record


def _chunks(index: np.ndarray, size: int) -> list[np.ndarray]:
    return [index[start : start + size] for start in range(0, len(index), size)]


def _batches(dataset: Source, parts: Sequence[np.ndarray], divisor: int) -> Iterator[Batch]:
    """Chosen examples in batches of one size, which the devices divide; padding has weight 0."""
    size = -(-max(map(len, parts)) // divisor) * divisor
    for part in parts:
        index = np.full(size, len(dataset), np.int32)
        index[: len(part)] = part
        yield make_batch(dataset, index)


def _differences(plan: BenchmarkPlan, dataset: Source, count: int, split: Split) -> list[str]:
    """In what a measurement is not the benchmark's."""
    found = [] if count == NUM_IMAGES else [f"AutoAttack on {count:,} images, not {NUM_IMAGES:,}"]
    if not split.theirs:
        tuned = f"{len(split.tuning)} trials on {len(split.tuning[0])} images each"
        where = f"{len(split.measured)} images from position {split.measured[0]:,} on"
        found.append(f"HO-FMN tuned by {tuned} and measured on {where}, not 32 on 64 and 128 from 2,048")
    elif len(split.measured) > 128:
        found.append(f"HO-FMN measured on {len(split.measured)} images, not 128")
    return found


def _rows(result: SurveyResult, common: dict[str, Any]) -> list[dict[str, Any]]:
    def row(attack: str, norm: str, epsilon: float, accuracy: float, count: int) -> dict[str, Any]:
        low, high = wilson_interval(accuracy, count)
        measured = {"attack": attack, "norm": norm, "epsilon": epsilon, "accuracy": accuracy, "num_examples": count}
        return {**common, **measured, "low": low, "high": high}

    whole, measured = result.attacked, result.measured
    robust = zip((EPSILON, NOMINAL), whole.robust_accuracy["autoattack-linf"], strict=True)
    return [
        row("clean", "", 0.0, whole.clean_accuracy, whole.num_examples),
        *(row("autoattack", "linf", epsilon, float(accuracy), whole.num_examples) for epsilon, accuracy in robust),
        row("ho-fmn", "linf", NOMINAL, float(np.mean(result.distances > NOMINAL)), measured.num_examples),
    ]


def _arrays(result: SurveyResult) -> dict[str, np.ndarray]:
    """One entry per image of either part, and the curve."""
    whole, measured = result.attacked, result.measured
    return {
        "index": whole.index,
        "label": whole.label,
        "prediction": whole.prediction,
        "success/autoattack-linf": whole.success["autoattack-linf"],
        "epsilon/autoattack-linf": np.asarray(whole.epsilons["autoattack-linf"]),
        "broken_by/autoattack-linf": whole.broken_by["autoattack-linf"],
        f"index/{HO_FMN}": measured.index,
        f"distance/{HO_FMN}": result.distances,
        "curve/epsilon": np.asarray(result.curve.epsilons),
        "curve/accuracy": np.asarray(result.curve.accuracy),
    }


def read_about(path: str | Path) -> About:
    """What an ``about.toml`` says.

    Raises:
      SettingError: there is none, or it does not say what it has to.
    """
    try:
        told = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError("--about", str(path), f"a TOML file with name, title, authors, year and link ({error})") from None
    return about_of(told, str(path))


def structure_of(record: dict[str, Any]) -> str:
    """``S`` where whole structures were pruned, else ``US``."""
    return str(record["rows"][0].get("structure") or "US")


def measured_of(record: dict[str, Any]) -> Measured:
    """What :func:`benchmark_run` found, in the terms of the benchmark."""
    row, survey = record["rows"][0], record["survey"]
    return Measured(
        name=Path(record["run"]).name,
        architecture=survey["architecture"],
        data=row["data"],
        structure=structure_of(record),
        sparsity=round(float(row["sparsity"]), 6),
        **{name: survey[name] for name in ("clean", "autoattack", "autoattack_nominal", "ho_fmn")},
        **{name: survey[name] for name in ("num_attacked", "num_measured", "normalised")},
        differs=tuple(survey["differs"]),
    )


def write_submission(
    records: Sequence[dict[str, Any]],
    out: Path,
    *,
    about: About | None = None,
    with_pickle: bool = False,
    checkpoint: str = "last",
    data_dir: str | None = None,
    trust: Trust = NOTHING,
) -> dict[str, Path]:
    """Writes what the benchmark asks of a method: ``entry.json``, ``issue.md``, and of each run weights, distances and curve.

    Args:
      records: of :func:`benchmark_run`; of runs of one method.
      out: the folder; files of these names are replaced.
      about: who made the method; without it ``entry.json`` has numbers alone, and there is no issue and no ``model_info``.
      with_pickle: write the distances as the benchmark's own list, too.
      checkpoint: whose weights, as they were measured.
      data_dir, trust: as for :func:`benchmark_run`.

    Returns:
      File name → path.

    Raises:
      SettingError: runs of several methods or of one name, a method without a place in the taxonomy, or a folder that cannot be
        written to.
    """
    models = [measured_of(record) for record in records]
    if len({model.name for model in models}) < len(models):
        raise SettingError("RUNS", [model.name for model in models], "run folders of different names")
    entry = None
    if about is not None:
        entry = taxonomy_entry(_taxonomy_of(records, about), about)
        check_entry(entry)
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError("--out", str(out), f"a folder that can be written to ({error.strerror})") from error
    files: dict[str, Path] = {}

    def write(name: str, content: str | bytes) -> None:
        files[name] = write_atomic(Path(out) / name, content)

    told = []
    for record, model in zip(records, models, strict=True):
        key = (model.key(about.key) if about is not None else None) or model.name
        weights, _ = export_run(
            Path(record["run"]),
            out=Path(out) / f"{key}.safetensors",
            layout="torch" if model.architecture in ARCHITECTURES else "auto",
            checkpoint=checkpoint,
            data_dir=data_dir,
            trust=trust,
        )
        files |= {path.name: path for path in weights}
        with np.load(Path(record["run"]) / FOLDER / f"{_file_of(record)}.npz") as kept:
            arrays = {
                "distances": kept[f"distance/{HO_FMN}"],
                "index": kept[f"index/{HO_FMN}"],
                "epsilons": kept["curve/epsilon"],
                "accuracy": kept["curve/accuracy"],
            }
        write(f"{key}.npz", npz_of(arrays))
        if with_pickle:
            write(f"{key}.pickle", pickle.dumps(distances_as_list(files[f"{key}.npz"])))
        if about is not None:
            write(f"{key}.model_info.json", json_text(model_info(about, model), indent=1) + "\n")
        told.append({"model_key": model.key(about.key) if about is not None else None, "status": model.status, **model._asdict()})
    write("entry.json", json_text({"entry": entry, "models": told}, indent=1) + "\n")
    if entry is not None:
        write("issue.md", issue_text(entry, models))
    return files


def distances_as_list(path: str | Path) -> list[float]:
    """The distances in an npz of :func:`write_submission` as the benchmark keeps them: a list of numbers, in the order of images.

    Where nothing was found the distance is infinite; where the image is wrong without an attack it is 0.
    """
    with np.load(path) as kept:
        return [float(distance) for distance in kept["distances"]]


def _file_of(record: dict[str, Any]) -> str:
    fields = {field.name for field in dataclasses.fields(BenchmarkPlan)}
    return BenchmarkPlan(**{name: value for name, value in record["plan"].items() if name in fields}).name


def _taxonomy_of(records: Sequence[dict[str, Any]], about: About) -> Taxonomy:
    if about.taxonomy is not None:
        return about.taxonomy
    methods = {record["rows"][0].get("method") or "" for record in records}
    if len(methods) > 1:
        raise SettingError("RUNS", ", ".join(sorted(methods)), "runs of one method, which is what an entry is of")
    (method,) = methods
    if method not in METHODS:
        expected = "runs of a method out of " + ", ".join(METHODS) + "; of another, a table [taxonomy] in the file of --about"
        raise SettingError("RUNS", method or "weights from elsewhere", expected)
    return method_of(method).taxonomy
