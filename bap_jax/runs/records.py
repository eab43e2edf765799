"""What evaluations leave in a run folder, named, written and read again."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bap_jax.checkpoint import Network, read_metrics
from bap_jax.errors import RunWarning, SettingError
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.runs.migrations import config_of
from bap_jax.runs.naming import arm_of, columns_of, network_name, process_of
from bap_jax.runs.plan import AVERAGE, AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.runs.stored import read_evaluation, settings_from

FOLDER = "evaluations"
NEWEST = ("last", AVERAGE)  # checkpoints that training overtakes


def stored_evaluation(run: Path, plan: AttackPlan, step: int) -> dict[str, Any] | None:
    """What :func:`evaluate_run` wrote for this plan and step, if it did."""
    path = Path(run) / FOLDER / f"{plan_name(plan)}.json"
    if not path.exists():
        return None
    try:
        record = read_evaluation(path)
    except SettingError as error:
        warnings.warn(f"{error}; the evaluation is made again", RunWarning, stacklevel=2)
        return None
    return record if record["plan"] == plan.as_dict() and record["step"] == step else None


def plan_name(plan: AttackPlan) -> str:
    """A file name for a plan: readable, and different for different plans."""
    text = json.dumps(plan.as_dict(), sort_keys=True, allow_nan=False)
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


def metrics_until(run: Path, step: int) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl up to a step; none, with a warning, where they are damaged, and of an imported run."""
    try:
        return [line for line in read_metrics(run) if line["step"] <= step]
    except SettingError as error:
        warnings.warn(f"{error}; nothing is said of how it was trained", RunWarning, stacklevel=2)
        return []


def which_of(record: dict[str, Any]) -> str:
    """The ``--checkpoint`` that was evaluated, by its step where it has one of its own."""
    return AVERAGE if record["plan"]["checkpoint"] == AVERAGE else str(record["step"])


def arm_at(settings: Settings, checkpoint: str) -> str:
    """How the network of a checkpoint is called in tables."""
    return arm_of(settings) + ("" if checkpoint == "last" else f", checkpoint {checkpoint}")


def evaluations_of(run_folder: Path) -> list[dict[str, Any]]:
    """The records that :func:`evaluate_run` left in a run folder, their arms called as this version calls them: what an earlier
    one called by the name of its default may be no default any more. One that is damaged is left out with a warning.

    Raises:
      SettingError: there are none, or no run is there.
    """
    config = config_of(run_folder)
    records = _readable_evaluations(run_folder)
    if not records:
        raise SettingError("RUNS", str(run_folder), f"a run folder with evaluations; first: bap evaluate {run_folder}")
    newest = max((record["step"] for record in records if record["plan"]["checkpoint"] in NEWEST), default=None)
    settings = _known(config)
    for record in records:
        if settings is None:
            break
        told = {"arm": arm_at(settings, record["plan"]["checkpoint"]), **columns_of(settings)}
        record["rows"] = [row | told for row in record.get("rows", ())]
    # training went on after an earlier evaluation of its last checkpoint: that one is out of date
    return [record for record in records if record["plan"]["checkpoint"] not in NEWEST or record["step"] == newest]


def _known(config: dict[str, Any]) -> Settings | None:
    """The settings of a run, or None if another version has others, whose arms it named itself."""
    try:
        return settings_from(config)
    except SettingError:
        return None


def _readable_evaluations(run_folder: Path) -> list[dict[str, Any]]:
    records = []
    for path in sorted((Path(run_folder) / FOLDER).glob("*.json")):
        try:
            # the folder may have been moved since, or named from another place
            records.append(read_evaluation(path) | {"run": str(run_folder), "name": path.stem})
        except SettingError as error:
            warnings.warn(f"{error}; it is left out", RunWarning, stacklevel=2)
    return records


def common_columns(
    settings: Settings, network: Network, sizes: dict[str, Any], checkpoint: str = "last", split: str = "test"
) -> dict[str, Any]:
    """What every row of a network's evaluations says: which network it is, how it was trained and pruned, how large it is."""
    return {
        "data": settings.data,
        "model": network_name(settings),
        "arm": arm_at(settings, checkpoint),
        "process": process_of(settings),
        "sparsity": settings.final_sparsity if settings.pruner != "dense" else 0.0,
        "seed": settings.seed,
        "split": split,
        **columns_of(settings),
        "sparsity_measured": float(measured_sparsity(network.masks)),
        **sizes,
    }


def fingerprint(weights: Any) -> str:
    """What tells one network's weights from another's."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(weights):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def npz_of(arrays: dict[str, np.ndarray]) -> bytes:
    """The content of a compressed npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
