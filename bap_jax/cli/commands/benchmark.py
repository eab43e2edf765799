"""`bap benchmark`: runs by the adversarial pruning benchmark's protocol, their numbers as a table, and what is handed in."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bap_jax.cli import arguments as cli
from bap_jax.cli.commands.evaluate import attacking
from bap_jax.cli.process import devices_of
from bap_jax.cli.screen import console, progress_bar, show_checks, show_notes
from bap_jax.errors import SettingError
from bap_jax.evaluation import Progress
from bap_jax.runs.benchmark import benchmark_run, measured_of, read_about, write_submission
from bap_jax.runs.benchmark_plan import BenchmarkPlan
from bap_jax.runs.trust import Trust


def run_benchmark(command: cli.Benchmark, trust: Trust) -> int:
    """`bap benchmark`."""
    screen = console()
    if not command.runs:
        raise SettingError("RUNS", "", "at least one run folder")
    about = None if command.about is None else read_about(command.about)
    plan = BenchmarkPlan(**{name: getattr(command, name) for name in BenchmarkPlan.__dataclass_fields__}).check()
    records: list[dict[str, Any]] = []
    with progress_bar("benchmark, per cent", 100, screen) as update:
        for number, run in enumerate(command.runs):

            def tell(reached: Progress, number: int = number, name: str = run.name) -> None:
                update(round(100 * (number + reached.fraction) / len(command.runs), 1), f"{name}: {attacking(reached)}", 100)

            records.append(
                benchmark_run(
                    run,
                    plan,
                    data_dir=command.data_dir,
                    batch_size=command.batch_size,
                    devices=devices_of(command.devices),
                    progress=tell,
                    trust=trust,
                )
            )
    files = write_submission(
        records,
        command.out,
        about=about,
        with_pickle=command.pickle,
        checkpoint=plan.checkpoint,
        data_dir=command.data_dir,
        trust=trust,
    )
    screen.print(_table(records))
    for record in records:
        show_checks(record["checks"], screen)
    models = [measured_of(record) for record in records]
    for model in models:
        screen.print(f"{model.name}, {model.architecture} on {model.data}: {model.status}", highlight=False, soft_wrap=True)
    show_notes([f"{model.name}: {note}" for model in models for note in model.differs], screen)
    if about is None:
        show_notes(["no taxonomy, issue.md and model_info: they need --about, a file that says who made the method"], screen)
    screen.print(f"written to {command.out}: {', '.join(files)}", highlight=False, soft_wrap=True)
    return 0


def _table(records: list[dict[str, Any]]) -> Table:
    """A line per run: accuracies in per cent, with how many images they are of."""
    columns = ("run", "sparsity", "clean", "AA 0.031", "AA 8/255", "images", "HO-FMN", "images")
    table = Table(title="adversarial pruning benchmark, accuracies in per cent", title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for model in map(measured_of, records):
        accuracies = [f"{100 * value:.2f}" for value in (model.clean, model.autoattack, model.autoattack_nominal)]
        sparsity, ho_fmn = f"{model.structure} {100 * model.sparsity:g} %", f"{100 * model.ho_fmn:.2f}"
        table.add_row(model.name, sparsity, *accuracies, str(model.num_attacked), ho_fmn, str(model.num_measured))
    return table
