"""Many runs as one job: train and evaluate every cell of a grid, in one process, leaving out what is done already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bap_jax.cli.evaluating import evaluate_run, stored_evaluation
from bap_jax.cli.loop import check_out, finished_step, load_data, train
from bap_jax.cli.naming import arm_of, process_of
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.settings import Settings
from bap_jax.data import Splits

Told = Callable[[int, int, str], None]  # (cells done, cells in all, what is being done)


def expand(
    base: Settings,
    arms: Sequence[dict[str, Any]],
    *,
    sparsities: Sequence[float],
    ramp_ends: Sequence[float],
    seeds: Sequence[int],
) -> list[Settings]:
    """Every arm at every sparsity, pruning process and seed.

    Args:
      base: what all cells share.
      arms: for each arm the settings in which it departs from ``base``.
      sparsities: final sparsities.
      ramp_ends: ends of the ramp as fractions of training.
      seeds: seeds.

    >>> cells = expand(Settings(), [{}, {"budget": "none"}], sparsities=[0.8, 0.9], ramp_ends=[0.5], seeds=[0, 1])
    >>> len(cells), cell_name(cells[-1])
    (8, 'clean/0-50%/s0.9/seed1')
    """
    return [
        dataclasses.replace(base, **arm, final_sparsity=sparsity, ramp_end=end, seed=seed).check()
        for arm in arms
        for sparsity in sparsities
        for end in ramp_ends
        for seed in seeds
    ]


def cell_name(settings: Settings) -> str:
    """The folder of a cell inside the grid's folder."""
    parts = (arm_of(settings), process_of(settings), f"s{settings.final_sparsity:g}", f"seed{settings.seed}")
    return "/".join(part.replace("/", "of").replace(", ", "_").replace(" ", "-").replace(":", "-") for part in parts)


def run_grid(
    cells: Sequence[Settings],
    plans: Sequence[AttackPlan],
    out: Path,
    *,
    splits: Splits | None = None,
    devices: int | None = 1,
    told: Told | None = None,
    data_dir: str | None = None,
) -> list[dict[str, Any]]:
    """Trains and evaluates every cell that is not finished yet; interrupted cells go on from their checkpoints.

    All cells have to share the data set. Cells that differ only in what the train state carries (sparsity, ramp, seed, epsilon,
    scale) share one compile.

    Args:
      cells: from :func:`expand`.
      plans: how every cell is evaluated.
      out: folder of the cells' run folders.
      splits: the data, if it is loaded already.
      devices: how many devices; None for all.
      told: progress.
      data_dir: folder with prepared data sets.

    Returns:
      The records of :func:`bap_jax.cli.evaluating.evaluate_run`, cell by cell and plan by plan.

    Raises:
      SettingError: a cell that makes no sense, or a folder that holds the same cell with other settings.
    """
    for settings in cells:
        check_out(settings, Path(out) / cell_name(settings), resume=True)
    splits = splits or load_data(dataclasses.replace(cells[0], data_dir=data_dir or cells[0].data_dir))
    records = []
    for number, settings in enumerate(cells):
        name = cell_name(settings)
        folder = Path(out) / name
        if told:
            told(number, len(cells), name)
        done = finished_step(folder)
        if done is None:
            done = train(settings, folder, splits=splits, resume=True, devices=devices, save_seconds=60.0).steps
        for plan in plans:
            dataset = getattr(splits, plan.split)
            record = stored_evaluation(folder, plan, done) if plan.checkpoint == "last" else None
            records.append(record or evaluate_run(folder, plan, dataset=dataset, devices=devices, batch_size=500))
    if told:
        told(len(cells), len(cells), "done")
    return records
