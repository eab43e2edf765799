"""The commands: from a parsed command line to what is computed, written and shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bap_jax import data as data_layer
from bap_jax import report as report_layer
from bap_jax.cli import arguments as cli
from bap_jax.cli.process import devices_of
from bap_jax.cli.screen import console, progress_bar, show_checks, show_notes, show_pairs
from bap_jax.errors import SettingError
from bap_jax.evaluation import Progress
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.loop import check_out, load_data, train
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import _readable_evaluations, evaluations_of
from bap_jax.runs.report import write_runs_report
from bap_jax.runs.report_inputs import (
    rows_of,
)
from bap_jax.runs.session import Trained
from bap_jax.runs.settings import Settings
from bap_jax.runs.signals import Interrupted
from bap_jax.runs.stored import differences, settings_in
from bap_jax.runs.trust import NOTHING, Trust, check_trust
from bap_jax.runs.validation import summary
from bap_jax.runs.weights import export_run, import_run

INTERRUPTED = 130


def run(command: Any, trust: Trust = NOTHING) -> int:
    """Runs a parsed command and returns its exit status; ``trust`` says which code stored configurations may name."""
    try:
        return _run(command, trust)
    except Interrupted as stopped:
        console().print(str(stopped), style="yellow", highlight=False)
        return INTERRUPTED


def _run(command: Any, trust: Trust) -> int:
    if isinstance(command, cli.Train):
        return run_train(command, trust)
    if isinstance(command, cli.Evaluate):
        return run_evaluate(command, trust)
    if isinstance(command, cli.Report):
        return run_report(command, trust)
    if isinstance(command, cli.Export):
        return run_export(command, trust)
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


def settings_from(command: cli.Train, trust: Trust = NOTHING) -> Settings:
    """The part of a train command that is configuration; :func:`bap_jax.cli.main.with_config` put that of ``--config`` there."""
    settings = Settings(**{name: getattr(command, name) for name in Settings.__dataclass_fields__})
    if command.config is not None:  # a name that the command line replaces is not used
        check_trust(settings.as_dict(), command.config.parent, trust, file=command.config.name)
    return settings


def show_config(settings: Settings, config: Path, screen: Console) -> None:
    """What a run takes from ``--config``, and what the command line says otherwise."""
    told = [f"{name} {mine} (there {theirs})" for name, mine, theirs in differences(settings, settings_in(config))]
    screen.print(
        f"settings of {config}, " + (f"but {', '.join(told)}" if told else "all of them"), highlight=False, soft_wrap=True
    )


def run_train(command: cli.Train, trust: Trust) -> int:
    """`bap train`."""
    screen = console()
    settings = settings_from(command, trust)
    if command.config is not None:
        show_config(settings, command.config, screen)
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
        said = f"{name} was {then} when the run was started, now {now}: results may differ"
        screen.print(said, style="yellow", highlight=False)
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


def run_evaluate(command: cli.Evaluate, trust: Trust) -> int:
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
            trust=trust,
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
        screen.print("this run is not finished", style="yellow")
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


def run_report(command: cli.Report, trust: Trust) -> int:
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
        records,
        command.out,
        title=command.title,
        notes=notes,
        samples=command.samples,
        data_dir=command.data_dir,
        trust=trust,
    )
    report_layer.print_report(rows_of(records), console())
    console().print(f"report: {paths['report.html']}", highlight=False)
    return 0


def _left_out(runs: Sequence[Path], records: Sequence[dict[str, Any]], tested: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Which evaluations a report leaves out, and why."""
    outdated = sum(len(_readable_evaluations(run_folder)) for run_folder in runs) - len(records)
    validation = len(records) - len(tested) if tested else 0
    notes = [f"{validation} evaluations on validation data are left out."] if validation else []
    return (*notes, *([f"{outdated} evaluations of checkpoints that training has overtaken are left out."] if outdated else []))


def run_export(command: cli.Export, trust: Trust) -> int:
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
        trust=trust,
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
    given = {
        name: getattr(command, name)
        for name in ("model", "data", "out", "data_dir", "image_size", "layout", "architecture", "masks", "key")
    }
    imported = import_run(command.file, **given)
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
        screen.print(f"{count} tensors were {dtype} and are float32 now", style="yellow", highlight=False)
    show_notes(imported.notes, screen)
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
    pairs = [(name, str(value)) for name, value in prepared._asdict().items() if name != "notes"]
    show_pairs("prepared", pairs, screen)
    show_notes(prepared.notes, screen)
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
