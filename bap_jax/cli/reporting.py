"""From evaluation records to a report: rows, settings, checks, histories, layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bap_jax.checkpoint import read_config, read_metrics
from bap_jax.cli.evaluating import restore_checkpoint, settings_of
from bap_jax.cli.naming import arm_of, short_names
from bap_jax.mathematics.masks import layer_sparsity
from bap_jax.report import COLUMNS

Record = dict[str, Any]


def rows_of(records: list[Record]) -> list[dict[str, Any]]:
    """The rows of all records as a report takes them: arms named as shortly as they can be told apart, and of a network's clean
    accuracies, which every evaluation brings, the one on most examples."""
    rows: list[dict[str, Any]] = []
    clean: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in (row for record in records for row in record["rows"]):
        key = tuple(row[name] for name in (*COLUMNS, "split") if name not in ("accuracy", "num_examples"))
        if row["attack"] != "clean":
            rows.append(row)
        elif key not in clean or row["num_examples"] > clean[key]["num_examples"]:
            clean[key] = row
    short = short_names(row["arm"] for row in clean.values())
    return [{**row, "arm": short[row["arm"]]} for row in (*clean.values(), *rows)]


def one_run_per_arm(records: list[Record]) -> dict[str, str]:
    """Arm → a run folder: of its sparsest network, the first among equals."""
    chosen: dict[str, tuple[float, str]] = {}
    for record in records:
        settings = settings_of(record["run"])
        arm, sparsity = arm_of(settings), settings.final_sparsity
        if arm not in chosen or sparsity > chosen[arm][0]:
            chosen[arm] = (sparsity, record["run"])
    short = short_names(chosen)
    return {short[arm]: run for arm, (_, run) in chosen.items()}


def settings_table(records: list[Record]) -> dict[str, Any]:
    """The settings all runs share, and for the others how many values they take."""
    configs = [read_config(run) for run in dict.fromkeys(record["run"] for record in records)]
    shared: dict[str, Any] = {"runs": len(configs)}
    for name in configs[0]:
        values = list(dict.fromkeys(str(config.get(name)) for config in configs))
        shared[name] = values[0] if len(values) == 1 else ", ".join(values)
    plans = list(dict.fromkeys(str(record["plan"]) for record in records))
    return {"training": shared, "evaluation": records[0]["plan"] if len(plans) == 1 else dict(enumerate(plans))}


def checks_of(records: list[Record]) -> list[dict[str, Any]]:
    """The checks of all evaluations, alike ones once, with how many evaluations they speak for; the worst value is shown."""
    order = ("failed", "warned", "passed")
    counts = Counter((check["name"], check["status"]) for record in records for check in record["checks"])
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        for check in record["checks"]:
            first.setdefault((check["name"], check["status"]), check)
    ranked = sorted(first.items(), key=lambda item: order.index(item[0][1]))
    return [
        {**check, "name": f"{name} ({counts[name, status]} of {len(records)} evaluations)"} for (name, status), check in ranked
    ]


def histories_of(records: list[Record]) -> dict[str, list[dict[str, Any]]]:
    """Arm → the lines of metrics.jsonl of one of its runs."""
    return {arm: _history(read_metrics(run)) for arm, run in one_run_per_arm(records).items()}


def _history(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines as a report draws them: budgets only where they differ among examples."""
    blind = any(line.get("epsilon_q05") != line.get("epsilon_q95") for line in lines)
    kept = [{name: value for name, value in line.items() if blind or not name.startswith("epsilon")} for line in lines]
    return [line | ({"cutoff": line["budget_cutoff"]} if "budget_cutoff" in line else {}) for line in kept]


def layers_of(records: list[Record]) -> dict[str, dict[str, float]]:
    """Arm → layer → sparsity, of one of its runs."""
    found = {}
    for arm, run in one_run_per_arm(records).items():
        network, _, _ = restore_checkpoint(run, "last")
        found[arm] = {path: float(value) for path, value in layer_sparsity(network.masks).items()}
    return found
