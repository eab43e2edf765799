"""The commands: from a parsed command line to what is computed, written and shown."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from bap_jax import data as data_layer
from bap_jax import report as report_layer
from bap_jax.cli import arguments as cli
from bap_jax.cli.evaluating import FOLDER, arm_at, evaluate_run, settings_of
from bap_jax.cli.exporting import export_run, import_run
from bap_jax.cli.loop import Interrupted, Trained, check_out, load_data, train
from bap_jax.cli.migrations import config_of
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.reporting import (
    checks_of,
    distances_of,
    histories_of,
    layers_of,
    notes_of,
    rows_of,
    settings_table,
    stages_of,
    versions_table,
)
from bap_jax.cli.sampling import samples_of
from bap_jax.cli.screen import console, progress_bar, show_checks, show_pairs
from bap_jax.cli.settings import Settings
from bap_jax.cli.validation import summary
from bap_jax.errors import SettingError
from bap_jax.evaluation import Progress

INTERRUPTED = 130


def run(command: Any) -> int:
    """Runs a parsed command and returns its exit status."""
    try:
        return _run(command)
    except Interrupted as stopped:
        console().print(f"[yellow]{stopped}[/yellow]", highlight=False)
        return INTERRUPTED


def _run(command: Any) -> int:
    if isinstance(command, cli.Train):
        return run_train(command)
    if isinstance(command, cli.Evaluate):
        return run_evaluate(command)
    if isinstance(command, cli.Report):
        return run_report(command)
    if isinstance(command, cli.Export):
        return run_export(command)
    if isinstance(command, cli.Import):
        return run_import(command)
    if isinstance(command, cli.PrepareData):
        return run_prepare(command)
    if isinstance(command, cli.ShowData):
        return run_show(command)
    if isinstance(command, cli.Sweep):
        from bap_jax.cli.sweeping import sweep

        return sweep(command)
    if isinstance(command, cli.Bench):
        from bap_jax.cli.bench import bench

        return bench(command)
    from bap_jax.cli.demo import demo

    return demo(command)


def settings_from(command: cli.Train) -> Settings:
    """The part of a train command that is configuration: over that of ``--config``, if there is one."""
    given = {name: getattr(command, name) for name in Settings.__dataclass_fields__}
    if command.config is None:
        return Settings(**given)
    if not command.config.is_file():
        raise SettingError("--config", str(command.config), "a config.json, as a run folder holds one")
    stored, default = settings_of(command.config.parent), Settings()
    changed = {name: value for name, value in given.items() if value != getattr(default, name)}
    return dataclasses.replace(stored, **changed)


def devices_of(command: cli.Train | cli.Evaluate | cli.Sweep) -> int | None:
    """How many devices to use: those asked for, else all accelerators (None), else one CPU device."""
    if command.devices is not None:
        return command.devices
    return 1 if jax.default_backend() == "cpu" else None


def run_train(command: cli.Train) -> int:
    """`bap train`."""
    screen = console()
    settings = settings_from(command)
    check_out(settings, command.out, command.resume)
    writer = TensorBoard(command.out) if command.tensorboard else None
    with progress_bar("reading data", None, screen) as update:
        splits = load_data(settings, progress=lambda done, total: update(done, "", total))
    try:
        with progress_bar("training", None, screen) as update:

            def progress(done: int, total: int, metrics: dict[str, float]) -> None:
                update(done, _now(metrics), total)

            trained = train(
                settings,
                command.out,
                splits=splits,
                resume=command.resume,
                devices=devices_of(command),
                writer=writer,
                progress=progress,
            )
    finally:
        if writer is not None:
            writer.close()
    _show_trained(settings, trained, screen)
    return 0


def _now(metrics: dict[str, float]) -> str:
    parts = [f"loss {metrics['loss']:.3f}", f"sparsity {metrics['sparsity']:.3f}"]
    parts += [f"epsilon {metrics['epsilon_mean']:.3f}"] if metrics.get("epsilon_mean") else []
    return "  ".join(parts)


def _show_trained(settings: Settings, trained: Trained, screen) -> None:
    if trained.resumed_from == trained.steps:
        screen.print(f"this run was finished already, at step {trained.steps}; nothing was trained", highlight=False)
    elif trained.resumed_from is not None:
        screen.print(f"resumed from step {trained.resumed_from}", highlight=False)
    for name, (then, now) in trained.changed_versions.items():
        screen.print(
            f"[yellow]{name} was {then} when the run was started, now {now}: results may differ[/yellow]", highlight=False
        )
    pairs = [("steps", str(trained.steps)), ("sparsity", f"{trained.sparsity:.4f}")]
    pairs += [(f"validation, {name}", value) for name, value in summary(settings, trained.validation)]
    pairs += [
        ("best checkpoint", f"step {trained.best_step}"),
        ("seconds", f"{trained.seconds:.0f}"),
        ("run", str(trained.folder)),
    ]
    show_pairs("trained", pairs, screen)
    screen.print(f"next: bap evaluate {trained.folder}", highlight=False)


class TensorBoard:
    """A TensorBoard writer that makes its files at the first value: until then the run folder has to stay empty.

    Raises:
      SettingError: the package is missing.
    """

    def __init__(self, out: Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise SettingError("--tensorboard", True, "the package tensorboardX: pip install 'bap_jax[tensorboard]'") from None
        self._make, self._folder = SummaryWriter, Path(out) / "tensorboard"
        self._writer: Any = None

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=step)  # a resumed run repeats what comes after its step
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def run_evaluate(command: cli.Evaluate) -> int:
    """`bap evaluate`."""
    screen = console()
    plan = AttackPlan(**{name: getattr(command, name) for name in AttackPlan.__dataclass_fields__})
    with progress_bar("attacking, per cent", None, screen) as update:
        record = evaluate_run(
            command.run,
            plan,
            data_dir=command.data_dir,
            batch_size=command.batch_size,
            devices=devices_of(command),
            save_examples=command.save_examples,
            progress=lambda told: update(round(100 * told.fraction, 1), _attacking(told), 100),
        )
    table = Table(title=f"{command.run}, step {record['step']}, {plan.split} data", title_justify="left")
    for column in ("attack", "epsilon", "accuracy", "95 % interval", "examples"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for row in record["rows"]:
        name = " ".join(part for part in (row["attack"], row["norm"]) if part)
        interval = f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
        table.add_row(name, f"{row['epsilon']:.4g}", f"{100 * row['accuracy']:.2f} %", interval, str(row["num_examples"]))
    screen.print(table)
    _show_stages(record["stages"], screen)
    _show_distances(record["distances"], screen)
    show_checks(record["checks"], screen)
    if not record["finished"]:
        screen.print("[yellow]this run is not finished[/yellow]")
    return 1 if command.strict and any(check["status"] == "failed" for check in record["checks"]) else 0


def _attacking(told: Progress) -> str:
    at = "" if math.isinf(told.epsilon) else f" at epsilon {told.epsilon:.4g}"
    return f"{told.threat}{at}: {told.done} of {told.total} examples, {100 * told.accuracy:.1f} % robust"


def _show_stages(stages: dict[str, list[dict[str, Any]]], screen: Console) -> None:
    """Robust accuracy after each attack of a cascade."""
    for name, rows in stages.items():
        table = Table(title=f"{name}, robust accuracy after each attack", title_justify="left")
        for column in ("after", "epsilon", "accuracy"):
            table.add_column(column, justify="left" if column == "after" else "right")
        for row in sorted(rows, key=lambda row: row["epsilon"]):
            table.add_row(row["stage"], f"{row['epsilon']:.4g}", f"{100 * row['accuracy']:.2f} %")
        screen.print(table)


def _show_distances(distances: dict[str, dict[str, Any]], screen: Console) -> None:
    """Quartiles of minimal distances over the examples that were right."""
    if not distances:
        return
    table = Table(title="smallest adversarial perturbations of correct examples", title_justify="left")
    for column in ("attack", "25 %", "median", "75 %", "not found", "examples"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for name, found in distances.items():
        quartiles = (found[which] for which in ("quarter", "median", "three_quarters"))
        cells = ["none" if value is None else f"{value:.4g}" for value in quartiles]
        table.add_row(name, *cells, str(found["not_found"]), str(found["attacked"]))
    screen.print(table)


def run_report(command: cli.Report) -> int:
    """`bap report`."""
    if not command.runs:
        raise SettingError("RUNS", "", "at least one run folder")
    if command.samples < 0:
        raise SettingError("--samples", command.samples, "a whole number of at least 0")
    records = [record for run_folder in command.runs for record in evaluations_of(run_folder)]
    tested = [record for record in records if record["plan"]["split"] == "test"]
    notes = _left_out(command.runs, records, tested)
    records = tested or records  # validation is no result where there is a test
    paths = write_runs_report(
        records, command.out, title=command.title, notes=notes, samples=command.samples, data_dir=command.data_dir
    )
    report_layer.print_report(rows_of(records), console())
    console().print(f"report: {paths['report.html']}", highlight=False)
    return 0


def _left_out(runs: Sequence[Path], records: Sequence[dict[str, Any]], tested: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Which evaluations a report leaves out, and why."""
    outdated = sum(len(list((Path(run_folder) / FOLDER).glob("*.json"))) for run_folder in runs) - len(records)
    validation = len(records) - len(tested) if tested else 0
    notes = [f"{validation} evaluations on validation data are left out."] if validation else []
    return (*notes, *([f"{outdated} evaluations of checkpoints that training has overtaken are left out."] if outdated else []))


def evaluations_of(run_folder: Path) -> list[dict[str, Any]]:
    """The records that :func:`evaluate_run` left in a run folder, their arms called as this version calls them: what an earlier
    one called by the name of its default may be no default any more.

    Raises:
      SettingError: there are none, or no run is there.
    """
    config = config_of(run_folder)
    known = config.keys() <= Settings.__dataclass_fields__.keys()
    paths = sorted((Path(run_folder) / FOLDER).glob("*.json"))
    if not paths:
        raise SettingError("RUNS", str(run_folder), f"a run folder with evaluations; first: bap evaluate {run_folder}")
    # the folder may have been moved since, or named from another place
    records = [json.loads(path.read_text(encoding="utf-8")) | {"run": str(run_folder), "name": path.stem} for path in paths]
    newest = max((record["step"] for record in records if record["plan"]["checkpoint"] == "last"), default=None)
    for record in records if known else ():
        arm = arm_at(Settings(**config), record["plan"]["checkpoint"])
        record["rows"] = [row | {"arm": arm} for row in record.get("rows", ())]
    # training went on after an earlier evaluation of its last checkpoint: that one is out of date
    return [record for record in records if record["plan"]["checkpoint"] != "last" or record["step"] == newest]


def write_runs_report(
    records: list[dict[str, Any]],
    out: Path,
    *,
    title: str,
    notes: tuple[str, ...] = (),
    samples: int = 8,
    data_dir: str | None = None,
) -> dict[str, Path]:
    """One report on the evaluations of several runs, with training history, layers and sample images of one run per arm.

    Args:
      records: what :func:`evaluate_run` returned or :func:`evaluations_of` read.
      out: the report's folder.
      title: its title.
      notes: remarks; those of :func:`bap_jax.cli.reporting.notes_of` come after them.
      samples: sample images of each of those runs, see :func:`bap_jax.cli.sampling.samples_of`.
      data_dir: where prepared data sets are, if not where the runs found them.

    Returns:
      File name → path.
    """
    pictures, missing = samples_of(records, samples, data_dir=data_dir)
    return report_layer.write_report(
        rows_of(records),
        out,
        title=title,
        settings=settings_table(records),
        versions=versions_table(records),
        checks=checks_of(records),
        notes=[*notes, *notes_of(records), *missing],
        histories=histories_of(records),
        layers=layers_of(records),
        samples=pictures,
        stages=stages_of(records),
        distances=distances_of(records),
    )


def run_export(command: cli.Export) -> int:
    """`bap export`."""
    screen = console()
    files, card = export_run(
        command.run,
        out=command.out,
        file_format=command.format,
        layout=command.layout,
        architecture=command.architecture,
        checkpoint=command.checkpoint,
        data_dir=command.data_dir,
    )
    weights, images = card["weights"], card["input"]
    pairs = [
        ("network", f"{card['architecture']}, {card['num_classes']} classes, step {card['step']}"),
        ("layout", f"{card['layout']}, images {images['axes']} {'×'.join(map(str, images['shape']))}"),
        ("normalisation", _normalisation(card["normalisation"])),
        ("parameters", f"{weights['parameters']:,}, {weights['nonzero']:,} not zero"),
        ("sparsity", f"{weights['sparsity']:.4f}"),
    ]
    show_pairs("exported", pairs, screen)
    for name, path in files._asdict().items():
        screen.print(f"{name}: {path} ({path.stat().st_size / 1e3:,.0f} kB)", highlight=False, soft_wrap=True)
    return 0


def run_import(command: cli.Import) -> int:
    """`bap import`."""
    screen = console()
    given = {name: getattr(command, name) for name in ("model", "data", "out", "data_dir", "image_size", "layout")}
    imported = import_run(command.file, **given, architecture=command.architecture, masks=command.masks)
    pairs = [
        ("layout", imported.layout),
        ("normalisation", _normalisation(imported.normalisation)),
        ("parameters", f"{imported.num_parameters:,}"),
        ("masks", imported.masks),
        ("sparsity", f"{imported.sparsity:.4f}"),
    ]
    show_pairs("imported", pairs, screen)
    for dtype in dict.fromkeys(imported.converted.values()):
        count = sum(other == dtype for other in imported.converted.values())
        screen.print(f"[yellow]{count} tensors were {dtype} and are float32 now[/yellow]", highlight=False)
    screen.print(f"next: bap evaluate {imported.run}", highlight=False, soft_wrap=True)
    return 0


def _normalisation(normalisation: dict[str, Any] | None) -> str:
    if normalisation is None:
        return "not known: the model's own"
    mean, std = normalisation["mean"], normalisation["std"]
    if not any(mean) and all(value == 1 for value in std):
        return "none: the network takes pixels as they are"
    return f"inside the network, mean {mean}, std {std}"


def run_prepare(command: cli.PrepareData) -> int:
    """`bap data prepare`."""
    screen = console()
    prepared = data_layer.prepare(command.name, command.data_dir)
    show_pairs("prepared", [(name, str(value)) for name, value in prepared._asdict().items()], screen)
    return 0


def run_show(command: cli.ShowData) -> int:
    """`bap data show`."""
    screen = console()
    with progress_bar("reading data", None, screen) as update:
        progress = lambda done, total: update(done, "", total)  # noqa: E731
        splits = data_layer.load(command.name, data_dir=command.data_dir, progress=progress)
    table = Table(title=command.name, title_justify="left")
    for column in ("split", "examples", "image", "classes", "mean", "std"):
        table.add_column(column)
    for name, split in zip(splits._fields, splits, strict=True):
        numbers = data_layer.statistics(split)
        mean, std = (", ".join(f"{x:.5f}" for x in values) for values in (numbers.mean, numbers.std))
        shape = "×".join(map(str, split.image_shape))
        table.add_row(name, str(len(split)), shape, str(split.num_classes), mean, std)
    screen.print(table)
    return 0
