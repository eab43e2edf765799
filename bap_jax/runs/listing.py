"""Which runs lie in a folder, and how far each has come: read from what they left, without their code and their weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bap_jax.checkpoint import CHECKPOINTS, read_metrics
from bap_jax.errors import CheckpointError, DataError, SettingError
from bap_jax.runs.loop import saved_step
from bap_jax.runs.migrations import config_of
from bap_jax.runs.naming import arm_of, network_name
from bap_jax.runs.records import _readable_evaluations
from bap_jax.runs.stored import settings_from

CONFIG = "config.json"


class Listed(NamedTuple):
    """A run folder at a glance. Accuracies are of its newest evaluation on test data, else of its last validation."""

    run: str
    data: str = ""
    model: str = ""
    method: str = ""  # the method, or what its slots are filled with
    sparsity: float | None = None
    step: int | None = None  # of its newest checkpoint
    finished: bool = False
    clean: float | None = None
    robust: float | None = None  # at the largest ε of the strongest evaluation, or of the validation
    attack: str = ""  # by which, and at which ε
    note: str = ""  # what is wrong with it


def list_runs(folders: Sequence[str | Path]) -> list[Listed]:
    """Every run folder in these folders and below, in the order of their names; a run folder itself is not looked into.

    Args:
      folders: where to look.

    Returns:
      One entry per run; of one that cannot be read, its ``note`` says why.

    Example:
      >>> list_runs([])
      []
    """
    found = dict.fromkeys(path for folder in folders for path in _run_folders(Path(folder)))
    return [_listed(path) for path in found]


def _run_folders(folder: Path) -> Iterator[Path]:
    if (folder / CONFIG).is_file() and (folder / CHECKPOINTS).is_dir():
        yield folder
        return
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        yield from _run_folders(inner)


def _listed(path: Path) -> Listed:
    try:
        step, finished = saved_step(path)
        one = Listed(str(path), step=step, finished=finished)
        lines = read_metrics(path)
        config = config_of(path)
    except (SettingError, CheckpointError, DataError, OSError, ValueError) as error:
        return Listed(str(path), note=str(error))
    one = one._replace(**_accuracies(path, lines))
    sparsities = [line["sparsity"] for line in lines if "sparsity" in line]
    one = one._replace(sparsity=sparsities[-1] if sparsities else None)
    try:
        settings = settings_from(config)
    except SettingError:  # of objects, which a configuration cannot name, or of another version
        return one._replace(data=str(config.get("data", {}).get("name", "")) if isinstance(config.get("data"), dict) else "")
    return one._replace(data=settings.data, model=network_name(settings), method=settings.method or arm_of(settings))


def _accuracies(path: Path, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    with warnings.catch_warnings():  # a damaged evaluation is told of by `bap report`
        warnings.simplefilter("ignore")
        records = [record for record in _readable_evaluations(path) if record["plan"]["split"] == "test"]
    rows = [row for record in records for row in record.get("rows", ())]
    attacked = [row for row in rows if row["epsilon"] > 0]
    if attacked:
        least = min(attacked, key=lambda row: row["accuracy"])
        clean = next((row["accuracy"] for row in rows if row["epsilon"] == 0), None)
        return {
            "clean": clean,
            "robust": least["accuracy"],
            "attack": f"{least['attack']} {least['norm']} {least['epsilon']:.3g}",
        }
    prefix = "validation_accuracy_"
    measured = [{name: value for name, value in line.items() if name.startswith(prefix)} for line in lines]
    last = next((line for line in reversed(measured) if line), None)
    if not last:
        return {}
    radii = {float(name.removeprefix(prefix)): value for name, value in last.items()}
    largest = max(radii)
    robust = {"robust": radii[largest], "attack": f"validation {largest:.3g}"} if largest > 0 else {}
    return {"clean": radii.get(0.0), **robust}
