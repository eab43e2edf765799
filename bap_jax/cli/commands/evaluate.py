"""`bap evaluate`: attacks on a run's network, its accuracies and the checks as tables."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bap_jax.cli import arguments as cli
from bap_jax.cli.output import tell
from bap_jax.cli.process import devices_of
from bap_jax.cli.screen import console, progress_bar, show_checks
from bap_jax.errors import CheckpointError, DataError, SettingError
from bap_jax.evaluation import Progress
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.trust import Trust


def run_evaluate(command: cli.Evaluate, trust: Trust) -> int:
    """`bap evaluate`: of several runs one after the other; one that cannot be evaluated does not keep the others from it."""
    if not command.runs:
        raise SettingError("RUNS", "", "at least one run folder")
    screen = console()
    plan = AttackPlan(**{name: getattr(command, name) for name in AttackPlan.__dataclass_fields__})
    records, failed = [], {}
    for run in command.runs:
        try:
            records.append(_evaluate(run, command, plan, screen, trust))
        except (SettingError, DataError, CheckpointError) as error:
            if len(command.runs) == 1:
                raise
            failed[str(run)] = str(error)
            print(f"bap: error: {run}: {error}", file=sys.stderr)
    tell(evaluations=records, failed=failed)
    if len(command.runs) > 1:
        screen.print(_together(records))
    if failed:
        return 2
    checks = [check for record in records for check in record["checks"]]
    return 1 if command.strict and any(check["status"] == "failed" for check in checks) else 0


def _together(records: list[dict[str, Any]]) -> Table:
    """What attacks left of each run, a line per run: the table that one looks for after several evaluations."""
    columns = dict.fromkeys((row["attack"], row["norm"], row["epsilon"]) for record in records for row in record["rows"])
    table = Table(title="accuracies, %", title_justify="left")
    table.add_column("run", overflow="fold")
    for attack, norm, epsilon in columns:
        table.add_column(f"{attack} {norm} {epsilon:.3g}" if epsilon else attack, justify="right")
    for record in records:
        of = {(row["attack"], row["norm"], row["epsilon"]): f"{100 * row['accuracy']:.1f}" for row in record["rows"]}
        table.add_row(str(record["run"]), *(of.get(column, "") for column in columns))
    return table


def _evaluate(run: Path, command: cli.Evaluate, plan: AttackPlan, screen: Console, trust: Trust) -> dict[str, Any]:
    with progress_bar("attacking, per cent", None, screen) as update:
        record = evaluate_run(
            run,
            plan,
            data_dir=command.data_dir,
            batch_size=command.batch_size,
            devices=devices_of(command.devices),
            save_examples=command.save_examples,
            progress=lambda reached: update(round(100 * reached.fraction, 1), attacking(reached), 100),
            trust=trust,
        )
    table = Table(title=f"{run}, step {record['step']}, {plan.split} data", title_justify="left")
    for column in ("attack", "epsilon", "accuracy", "95 % interval", "examples"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for row in record["rows"]:
        name = " ".join(part for part in (row["attack"], row["norm"]) if part)
        interval = f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
        table.add_row(name, f"{row['epsilon']:.4g}", f"{100 * row['accuracy']:.2f} %", interval, str(row["num_examples"]))
    screen.print(table)
    _show_stages(record["stages"], screen)
    _show_distances(record, screen)
    show_checks(record["checks"], screen)
    if not record["finished"]:
        screen.print("this run is not finished", style="yellow")
    return record


def attacking(reached: Progress) -> str:
    """What is being done, for a progress bar."""
    at = "" if math.isinf(reached.epsilon) else f" at epsilon {reached.epsilon:.4g}"
    robust = "" if math.isnan(reached.accuracy) else f", {100 * reached.accuracy:.1f} % robust"
    return f"{reached.threat}{at}: {reached.done} of {reached.total} examples{robust}"


def _show_stages(stages: dict[str, list[dict[str, Any]]], screen: Console) -> None:
    """Robust accuracy after each attack of a cascade."""
    for name, rows in stages.items():
        table = Table(title=f"{name}, robust accuracy after each attack", title_justify="left")
        for column in ("after", "epsilon", "accuracy"):
            table.add_column(column, justify="left" if column == "after" else "right")
        for row in sorted(rows, key=lambda row: row["epsilon"]):
            table.add_row(row["stage"], f"{row['epsilon']:.4g}", f"{100 * row['accuracy']:.2f} %")
        screen.print(table)


def _show_distances(record: dict[str, Any], screen: Console) -> None:
    """Quartiles of minimal distances over the examples that were right; optimality, and passes where they were counted."""
    distances, passes = record["distances"], record.get("passes", {})
    if not distances:
        return
    table = Table(title="smallest adversarial perturbations of correct examples", title_justify="left")
    more = ("passes",) if passes else ()  # forward and backward
    for column in ("attack", "25 %", "median", "75 %", "no point", "of", "optimality", *more):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for name, found in distances.items():
        quartiles = (found[which] for which in ("quarter", "median", "three_quarters"))
        cells = ["none" if value is None else f"{value:.4g}" for value in quartiles]
        optimality = record["optimality"].get(name)
        cells += [str(found["not_found"]), str(found["attacked"])]
        cells += ["none" if optimality is None or math.isnan(optimality) else f"{optimality:.4f}"]
        told = [" + ".join(f"{count:g}" for count in passes[name].values())] if name in passes else []
        table.add_row(name, *cells, *told)
    screen.print(table)
