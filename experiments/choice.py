"""Chooses one blind setting for all data sets, on validation data, by a rule that was written down before the runs.

Command: ``python -m experiments.choice [FOLDER ...]``, the folders of the sweeps ``blind_digits``, ``blind_mnist`` and
``blind_cifar10`` (``runs/NAME``), finished or not; without any, their published CSVs. Folders of the same name, of seeds that ran
side by side, are one. ``--split test`` shows the same on test data, and chooses nothing.

The rule. On each data set the *advantage* of a candidate (``CANDIDATES`` of ``arms.py``) is its AER score minus that of the best
uniform budget: mean accuracy over epsilon, sparsities, ramps and seeds, on validation data, over the cells that both have; the
best uniform budget is the one with the largest such score on the validation data of that data set. Chosen is the candidate whose
*smallest advantage* over the three data sets is largest. Candidates within a quarter of a point of that are not told apart: of
these the one with the smallest *regret* is chosen, the largest gap, over data sets and epsilons, to the best arm at that epsilon;
and if regrets too are within a quarter of a point, the one that stands first in ``CANDIDATES``. A candidate without a finished
cell on one of the data sets cannot be chosen.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from rich.table import Table

from bap_jax.cli.screen import console
from bap_jax.errors import SettingError
from bap_jax.report import uniform_arms, write_csv
from bap_jax.report.measures import regrets
from bap_jax.runs.naming import arm_of
from bap_jax.runs.plan import PGD_STEPS
from bap_jax.runs.records import evaluations_of
from bap_jax.runs.report_inputs import rows_of
from bap_jax.runs.settings import Settings
from experiments import published
from experiments.arms import CANDIDATES
from experiments.common import stamped
from experiments.published import Row

SWEEPS = ("blind_digits", "blind_mnist", "blind_cifar10")
SAME = 0.25  # points that tell nothing
NAMES = tuple(arm_of(Settings(**arm)) for arm in CANDIDATES)

Network = tuple[float, str, int]  # sparsity, process, seed
Curves = dict[str, dict[Network, dict[float, float]]]  # arm -> cell -> epsilon -> accuracy in per cent


class Standing(NamedTuple):
    """How a candidate stands on one data set."""

    advantage: float  # points over the best uniform budget
    regret: float  # points below the best arm at an epsilon, where that is most
    cells: int


def curves_of(rows: Sequence[Row]) -> Curves:
    """The security curve of every cell under PGD-20, of the rows of one data set and split."""
    found: Curves = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["attack"] not in ("clean", f"pgd-{PGD_STEPS}"):
            continue  # other attacks may have looked at some of the networks
        cell = (float(row["sparsity"]), str(row["process"]), int(row["seed"]))
        epsilon = float(row["epsilon"])
        if row["attack"] != "clean" or epsilon not in found[row["arm"]][cell]:
            found[row["arm"]][cell][epsilon] = 100 * float(row["accuracy"])
    return {arm: dict(cells) for arm, cells in found.items()}


def score(curves: Curves, arm: str, cells: Sequence[Network]) -> float:
    """Mean accuracy over the cells and their radii."""
    return float(np.mean([list(curves[arm][cell].values()) for cell in cells]))


def best_uniform(rows: Sequence[Row]) -> str:
    """The arm with the largest score among those with a prescribed budget, of the rows of one data set and split.

    Raises:
      SettingError: there is none.
    """
    curves, uniform = curves_of(rows), uniform_arms(rows)
    if not uniform:
        raise SettingError("FOLDER", list(curves), "finished cells of uniform budgets as well")
    return max(uniform, key=lambda arm: score(curves, arm, list(curves[arm])))


def standings(rows: Sequence[Row]) -> dict[str, Standing]:
    """Every arm that cuts and scales margins against the best uniform budget of a data set, and against the best arm at each
    radius.
    """
    curves, reference, found = curves_of(rows), best_uniform(rows), {}
    for arm in dict.fromkeys(row["arm"] for row in rows if row.get("budget") == "cutoff-scale"):
        shared = [cell for cell in curves[arm] if cell in curves[reference]]
        if not shared:
            continue
        advantage = score(curves, arm, shared) - score(curves, reference, shared)
        others = [other for other in curves if all(cell in curves[other] for cell in shared)]
        at = {other: np.mean([list(curves[other][cell].values()) for cell in shared], axis=0) for other in others}
        regret = dict(zip(at, regrets(np.stack(list(at.values()))), strict=True))[arm]
        found[arm] = Standing(advantage, float(regret), len(shared))
    return found


def choose(by_data: Mapping[str, Mapping[str, Standing]], candidates: Sequence[str] = NAMES) -> str | None:
    """The rule: the largest smallest advantage; among equals the smallest regret; then the order of the candidates.

    Example:
      >>> a, b = Standing(-1.0, 3.0, 2), Standing(-1.1, 2.0, 2)
      >>> choose({"x": {"blind, a": a, "blind, b": b}}, ("blind, a", "blind, b"))
      'blind, b'
    """
    complete = [arm for arm in candidates if all(arm in found for found in by_data.values())]
    if not complete or not by_data:
        return None
    smallest = {arm: min(found[arm].advantage for found in by_data.values()) for arm in complete}
    left = [arm for arm in complete if smallest[arm] >= max(smallest.values()) - SAME]
    regret = {arm: max(found[arm].regret for found in by_data.values()) for arm in left}
    return next(arm for arm in left if regret[arm] <= min(regret.values()) + SAME)


def read(folders: Sequence[Path]) -> dict[str, list[Row]]:
    """The rows of sweeps by the names of their folders, arms called as this version calls them; without any, of their CSVs.

    Raises:
      SettingError: a folder holds no evaluations yet.
    """
    if not folders:
        return {name: [*published.published_rows(name, "validation"), *published.published_rows(name)] for name in SWEEPS}
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for folder in folders:
        runs = sorted(path.parent for path in folder.rglob("evaluations") if list(path.glob("*.json")))
        if not runs:
            raise SettingError("FOLDER", str(folder), "a sweep's folder with evaluations")
        records[folder.resolve().name] += [stamped(record) for run in runs for record in evaluations_of(run)]
    return {name: rows_of(found) for name, found in records.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to choose on."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of sweeps; the published CSVs if there are none."""
    split: Literal["validation", "test"] = "validation"
    """`validation`, or `test` to look at what was chosen; the rule is for validation data."""
    publish: bool = False
    """Also take what the folders hold into the CSVs in experiments/results/ that are named as the folders are."""


def main() -> int:
    given = tyro.cli(Arguments, description=__doc__)
    by_data: dict[str, dict[str, Standing]] = {}
    for sweep, everything in read(given.folders).items():
        if given.publish and given.folders:
            write_csv(published.taken_in(sweep, everything), published.RESULTS / f"{sweep}.csv")
        rows = [row for row in everything if row["split"] == given.split]
        name = str(rows[0]["data"])
        by_data[name] = standings(rows)
        show(name, best_uniform(rows), by_data[name], curves_of(rows))
    if given.split == "test" or len(by_data) < len(SWEEPS):
        console().print("nothing is chosen: the rule takes validation data of all three data sets", highlight=False)
        return 0
    console().print(f"chosen: {choose(by_data)}", highlight=False)
    return 0


def show(data: str, reference: str, found: Mapping[str, Standing], curves: Curves) -> None:
    """The table of one data set, best first."""
    level = score(curves, reference, list(curves[reference]))
    table = Table(title=f"{data}: points over {reference}, which scores {level:.1f}", title_justify="left")
    for column in ("arm", "candidate", "advantage", "regret", "cells"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, (advantage, regret, cells) in sorted(found.items(), key=lambda item: -item[1].advantage):
        table.add_row(arm, "yes" if arm in NAMES else "", f"{advantage:+.1f}", f"{regret:.1f}", str(cells))
    console().print(table)


if __name__ == "__main__":
    sys.exit(main())
