"""From evaluation records to a report: rows, settings, versions, checks, histories, layers, distances, cascades."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from bap_jax.checkpoint import read_json, read_metrics
from bap_jax.checkpoint.run_folder import VERSIONS
from bap_jax.errors import CheckpointError, RunWarning, SettingError
from bap_jax.mathematics.masks import layer_sparsity
from bap_jax.report import COLUMNS, Distances
from bap_jax.report.compactions import compactions_table
from bap_jax.report.rows import NORM_NAMES, sparsity_of
from bap_jax.runs.compaction import RECORD as COMPACT
from bap_jax.runs.migrations import config_of
from bap_jax.runs.naming import short_names
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import FOLDER, plan_name, which_of
from bap_jax.runs.restore import restore_checkpoint

Record = dict[str, Any]
MAX_VALUES = 24  # of one setting


def rows_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The rows of all records as a report takes them: arms named as shortly as they can be told apart.

    Of a network's clean accuracies, which every evaluation brings, the one on most examples is kept. An attack that was measured
    on fewer gets the clean accuracy on those as its own point at ε = 0, so that no curve mixes two sets of images. What training
    cost is in every row.
    """
    rows: list[dict[str, Any]] = []
    clean: dict[tuple[Any, ...], dict[str, Any]] = {}
    own: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        attacks = dict.fromkeys((row["attack"], row["norm"]) for row in record["rows"] if row["attack"] != "clean")
        for row in (row | record.get("cost", {}) for row in record["rows"]):
            if row["attack"] != "clean":
                rows.append(row)
                continue
            for attack, norm in attacks:
                _keep_most_examples(own, row | {"attack": attack, "norm": norm})
            _keep_most_examples(clean, row)
    most = {key: row["num_examples"] for key, row in clean.items()}
    starts = [row for row in own.values() if row["num_examples"] != most[_key(row | {"attack": "clean", "norm": ""})]]
    short = _names(records)
    return [{**row, "arm": short[row["arm"]]} for row in (*clean.values(), *starts, *rows)]


def _keep_most_examples(found: dict[tuple[Any, ...], dict[str, Any]], row: dict[str, Any]) -> None:
    key = _key(row)
    if key not in found or row["num_examples"] > found[key]["num_examples"]:
        found[key] = row


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in (*COLUMNS, "split") if name not in ("accuracy", "num_examples"))


def _names(records: Sequence[Record]) -> dict[str, str]:
    """Arm as the rows have it → its short name."""
    return short_names(row["arm"] for record in records for row in record["rows"] if row["attack"] == "clean")


def one_record_per_arm(records: Sequence[Record]) -> dict[str, Record]:
    """Arm → an evaluation: of its sparsest network, the first among equals."""
    chosen: dict[str, Record] = {}
    for record in records:
        first = record["rows"][0]
        if first["arm"] not in chosen or sparsity_of(first) > sparsity_of(chosen[first["arm"]]["rows"][0]):
            chosen[first["arm"]] = record
    short = _names(records)
    return {short[arm]: record for arm, record in chosen.items()}


def settings_table(records: Sequence[Record]) -> dict[str, Any]:
    """Every setting of training and evaluation with its value, or the values that it takes among runs; evaluations whose plans
    differ are told apart by what they differ in.
    """
    configs = [config_of(run) for run in _runs(records)]
    names = dict.fromkeys(name for config in configs for name in config)
    training = {"runs": len(configs)} | {name: _values(config.get(name) for config in configs) for name in names}
    plans = [json.loads(text) for text in dict.fromkeys(json.dumps(record["plan"], allow_nan=False) for record in records)]
    fields = list(dict.fromkeys(name for plan in plans for name in plan))
    shared = [name for name in fields if len({str(plan.get(name)) for plan in plans}) == 1]
    found = {"training": training, "evaluation": {name: plans[0].get(name) for name in shared}}
    if len(plans) > 1:
        for number, plan in enumerate(plans, 1):
            found[f"evaluation {number}"] = {name: plan.get(name) for name in fields if name not in shared}
    return found


def differing_settings(records: Sequence[Record]) -> dict[str, str]:
    """The settings in which the runs differ, and the values that each takes."""
    configs = [config_of(run) for run in _runs(records)]
    names = dict.fromkeys(name for config in configs for name in config)
    taken = {name: ["–" if config.get(name) in (None, "") else config[name] for config in configs] for name in names}
    return {name: _values(values) for name, values in taken.items() if len(set(map(str, values))) > 1}


def folders_of(records: Sequence[Record], out: Path) -> dict[str, str]:
    """Arm → the folder that holds its runs and nothing else, or the first of them, as a link from the report's folder."""
    short, runs = _names(records), _runs(records)
    of = {
        name: list(dict.fromkeys(str(r["run"]) for r in records if short[r["rows"][0]["arm"]] == name)) for name in short.values()
    }
    found = {}
    for arm, mine in of.items():
        shared = os.path.commonpath([os.path.abspath(run) for run in mine])
        alone = all(run in mine or not os.path.abspath(run).startswith(shared + os.sep) for run in runs)
        target = shared if alone else os.path.abspath(mine[0])
        found[arm] = quote(Path(os.path.relpath(target, os.path.abspath(out))).as_posix()) + "/"
    return found


def versions_table(records: Sequence[Record]) -> dict[str, Any]:
    """What the numbers come from: versions and devices of the evaluations, and those of training where they were others."""
    evaluated = [record["versions"] for record in records]
    names = list(dict.fromkeys(name for found in evaluated for name in found))
    table: dict[str, Any] = {name: _values(found.get(name) for found in evaluated) for name in names}
    trained = []
    for run in _runs(records):
        path = Path(run) / VERSIONS
        if path.exists():
            try:
                found = read_json(path)
            except SettingError as error:
                warnings.warn(f"{error}; the report does without", RunWarning, stacklevel=2)
                continue
            trained += [found, *found.pop("resumed_with", [])]
    others = {name: _values(found.get(name) for found in trained) for name in names} if trained else {}
    differs = {name: value for name, value in others.items() if value != table[name]}
    return table | ({"training": differs} if differs else {})


def _runs(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(str(record["run"]) for record in records))


def _values(values: Iterable[Any]) -> str:
    """The distinct values in their order, the first ones if there are very many."""
    distinct = list(dict.fromkeys(str(value) for value in values))
    more = f", … ({len(distinct)} values)" if len(distinct) > MAX_VALUES else ""
    return ", ".join(distinct[:MAX_VALUES]) + more


def notes_of(records: Sequence[Record]) -> list[str]:
    """What a reader has to know about these evaluations and no table says."""
    notes = []
    unfinished = _runs([record for record in records if not record.get("finished", True)])
    if unfinished:
        notes.append(f"Training was not finished: {_values(unfinished)}.")
    validation = [record for record in records if record["plan"]["split"] != "test"]
    if validation:
        notes.append(f"{len(validation)} of {len(records)} evaluations are on validation data.")
    one = one_record_per_arm(records)
    if len(_runs(records)) > len(one):
        notes.append(
            "Training, layers and sample images are of one run per arm, its sparsest: "
            + "; ".join(f"{arm}: {record['run']}" for arm, record in list(one.items())[:MAX_VALUES])
            + "."
        )
    return notes


def checks_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The checks of all evaluations, alike ones once, with how many evaluations they speak for and the value in the first of
    them; where it did not pass and there are several runs, that run is named.
    """
    order = ("failed", "warned", "passed")
    counts = Counter((check["name"], check["status"]) for record in records for check in record["checks"])
    first: dict[tuple[str, str], dict[str, Any]] = {}
    several = len(_runs(records)) > 1
    short = _names(records)
    arms: dict[tuple[str, str], dict[str, None]] = {}
    for record in records:
        for check in record["checks"]:
            arms.setdefault((check["name"], check["status"]), {})[short[record["rows"][0]["arm"]]] = None
            named = f"{check['value']} (in {record['run']})" if several and check["status"] != "passed" else check["value"]
            first.setdefault((check["name"], check["status"]), {**check, "value": named})
    ranked = sorted(first.items(), key=lambda item: order.index(item[0][1]))
    return [
        {**check, "name": f"{name} ({counts[name, status]} of {len(records)} evaluations)", "arms": list(arms[name, status])}
        for (name, status), check in ranked
    ]


def histories_of(records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """Arm → the lines of metrics.jsonl of one of its runs; a run that several arms are checkpoints of comes once, an imported
    one, which was not trained here, not at all.
    """
    runs: dict[str, str] = {}
    for arm, record in one_record_per_arm(records).items():
        if str(record["run"]) not in runs.values():
            runs[arm] = str(record["run"])
    histories = {arm: _history(read_metrics(run)) for arm, run in runs.items()}
    return {arm: lines for arm, lines in histories.items() if lines}


def _history(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines as a report draws them: budgets only where they differ among examples."""
    blind = any(line.get("epsilon_q05") != line.get("epsilon_q95") for line in lines)
    kept = [{name: value for name, value in line.items() if blind or not name.startswith("epsilon")} for line in lines]
    return [line | ({"cutoff": line["budget_cutoff"]} if "budget_cutoff" in line else {}) for line in kept]


def layers_of(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Arm → layer → sparsity, of one of its runs, at the checkpoint that was evaluated; one that is damaged is left out."""
    found = {}
    for arm, record in one_record_per_arm(records).items():
        try:
            network, _, _ = restore_checkpoint(record["run"], which_of(record))
        except CheckpointError as error:
            warnings.warn(f"no layers of “{arm}”: {error}", RunWarning, stacklevel=2)
            continue
        found[arm] = {path: float(value) for path, value in layer_sparsity(network.masks).items()}
    return found


def attack_of(record: Record, name: str) -> tuple[str, str]:
    """An attack's name as the rows have it, and its norm, from the name that it has inside an evaluation, ``fmn-50-l2``."""
    for row in record["rows"]:
        if row["norm"] and row["attack"] in (name, name.replace(f"-{row['norm']}", "")) and name != row["attack"]:
            return row["attack"], row["norm"]
    return name, next((row["norm"] for row in record["rows"] if row["attack"] == name), "")


def stored_arrays(record: Record, ending: str) -> dict[str, np.ndarray] | None:
    """What an evaluation left per example: ``.npz``, or ``.examples.npz`` with its images; None if the file is not there.

    Raises:
      SettingError: the file is damaged.
    """
    name = record.get("name") or plan_name(AttackPlan(**record["plan"]))
    path = Path(record["run"]) / FOLDER / f"{name}{ending}"
    if not path.exists():
        return None
    try:
        with np.load(path) as stored:
            return {key: stored[key] for key in stored.files}
    except (ValueError, OSError, EOFError) as error:
        raise SettingError("RUNS", str(path), f"a file as bap evaluate writes it ({error})") from None


def distances_of(records: Sequence[Record]) -> list[Distances]:
    """What minimal-norm attacks found, of all seeds and processes of an arm at a sparsity together."""
    short = _names(records)
    pooled: dict[tuple[str, str, str, float, str, str], list[np.ndarray]] = {}
    measured: dict[tuple[str, str, str, float, str, str], list[tuple[float, float]]] = {}
    for record in (record for record in records if record.get("distances")):
        stored, row = stored_arrays(record, ".npz") or {}, record["rows"][0]
        for name in record["distances"]:
            if f"distance/{name}" in stored:
                attack, norm = attack_of(record, name)
                key = (row["data"], row["model"], short[row["arm"]], sparsity_of(row), attack, norm)
                pooled.setdefault(key, []).append(stored[f"distance/{name}"])
                optimality, passes = record.get("optimality", {}).get(name), record.get("passes", {}).get(name, {}).values()
                measured.setdefault(key, []).append((np.nan if optimality is None else optimality, sum(passes) or np.nan))
    means = {key: tuple(float(value) for value in np.mean(found, axis=0)) for key, found in measured.items()}
    return [
        Distances(*key, np.concatenate(found), len(found), optimality=means[key][0], passes=means[key][1])
        for key, found in pooled.items()
    ]


def compactions_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What `bap compact` wrote of those runs that it made, each named as it is now; one that is damaged is left out."""
    found = []
    for run in _runs(records):
        path = Path(run) / COMPACT
        if not path.exists():
            continue
        try:
            record = read_json(path)
            compactions_table([record])
        except (SettingError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{path} is not as bap compact writes it ({error}); it is left out", RunWarning, stacklevel=2)
            continue
        found.append(record | {"run": Path(run).name})
    return found


def stages_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Robust accuracy after each attack of each cascade, the clean accuracy on the same images first."""
    short, found = _names(records), []
    for record in records:
        clean = next((row for row in record["rows"] if row["attack"] == "clean"), None)
        for name, stages in record.get("stages", {}).items():
            attack, norm = attack_of(record, name)
            cascade = f"{attack} ({NORM_NAMES.get(norm, norm)})"
            row = record["rows"][0]
            common = {"data": row["data"], "model": row["model"], "arm": short[row["arm"]], "sparsity": sparsity_of(row)}
            for epsilon in dict.fromkeys(stage["epsilon"] for stage in stages):
                if clean:
                    start = {"stage": "clean", "epsilon": epsilon, "accuracy": clean["accuracy"]}
                    found.append({**common, "cascade": cascade, **start})
                found += [
                    {**common, "cascade": cascade, **stage, "stage": stage["stage"].removesuffix(f"-{norm}")}
                    for stage in stages
                    if stage["epsilon"] == epsilon
                ]
    return found
