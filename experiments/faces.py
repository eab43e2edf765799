"""The grid of "Pruning in the Face of Adversaries" on MNIST, with attacks that find what there is to find.

Command: ``python -m experiments.faces --data-dir DIR --out DIR --publish``; the same command goes on where it was stopped, and
publishes what is finished into ``experiments/results/faces_mnist.csv``. ``python -m experiments.tables`` and ``python -m
experiments.figures`` draw it. CPU, one process; :data:`PARTS` says in which order.

A chain is a way to prune, {weights, filters, kernels} × {random, magnitude in each layer, magnitude over the network}, and its
networks have c = 1, 2, 4 … 64 times fewer weights or structures: each begins with the network before it, is pruned, gets a new
Adam at 1e-3 and is trained until the loss on 6,000 validation images has not fallen for two epochs. All chains of a seed begin
with one dense network.

- depth: weights by magnitude over the network, five seeds; PGD-40 on 2,000 test images; of seed 0 also, like breadth, minimal L2
  and L0 on 500, C&W and Brendel-Bethge on 100 at c = 1, 4, 16, and PGD-40 made on the dense network on 1,000.
- breadth: the other eight, one seed, three of filters and kernels by magnitude over the network; PGD-40 on 1,000, FMN-L2 and
  sigma-zero on 500.

A network of less than 40 % clean accuracy is called collapsed and not attacked.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from bap_jax.cli.process import set_up_process
from bap_jax.data import Splits
from bap_jax.report import write_csv
from bap_jax.runs.datasets import load_data
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.loop import finished_step, train
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.records import stored_evaluation
from bap_jax.runs.settings import Settings
from bap_jax.runs.signals import Interrupted
from experiments.published import RESULTS

NAME = "faces_mnist"
COMPRESSIONS = (1, 2, 4, 8, 16, 32, 64)
COLLAPSED = 0.4  # of clean accuracy
LINF, L2, L0 = "4/255,8/255,16/255,32/255", "1,2,3,4", "3,6,9,12"
BASE = Settings(
    method="merkle",
    data="mnist",
    model="merkle_cnn",
    epochs=60,  # half of it for each phase, at most: patience ends them
    patience=2,
    validation_epsilon="0",
    validation_steps=1,
    validations=1,
    log_every=100,
)


class Chain(NamedTuple):
    """A way to prune."""

    structure: str  # weight, filter, kernel
    ranking: str  # local, global
    criterion: str  # l1, mean, random

    @property
    def name(self) -> str:
        how = "random" if self.criterion == "random" else "magnitude"
        return f"{self.structure}-{how}-{self.ranking}"


DEEP = Chain("weight", "global", "l1")
CHAINS = (
    DEEP,
    *(Chain(structure, "global", "mean") for structure in ("kernel", "filter")),
    *(Chain(structure, "local", "l1") for structure in ("weight", "kernel", "filter")),
    *(Chain(structure, "local", "random") for structure in ("weight", "kernel", "filter")),
)
BROAD = CHAINS[1:]
PARTS: tuple[tuple[str, int, Chain], ...] = (  # what is done, of which seed, of which chain; the most useful first
    *(("robust", seed, DEEP) for seed in range(3)),
    ("minimal", 0, DEEP),
    *(("robust", 0, chain) for chain in BROAD),
    ("trusted", 0, DEEP),
    *(("robust", seed, DEEP) for seed in range(3, 5)),
    *(("minimal", 0, chain) for chain in BROAD),
    ("transfer", 0, DEEP),
    *((what, seed, chain) for seed in (1, 2) for chain in BROAD[:2] for what in ("robust", "minimal")),
)


class Cell(NamedTuple):
    """One network."""

    chain: Chain
    seed: int
    compression: int

    @property
    def folder(self) -> Path:
        """Within the experiment's; the dense network is that of all chains."""
        seed = Path(f"seed{self.seed}")
        return seed / "dense" if self.compression == 1 else seed / self.chain.name / f"c{self.compression}"

    def settings(self, out: Path) -> Settings:
        """What trains it."""
        base = BASE.changed(seed=self.seed)
        if self.compression == 1:
            return base.in_phases()[0][1]
        before = out / self._replace(compression=self.compression // 2).folder
        chain = {f"pruner.{name}": value for name, value in self.chain._asdict().items()}
        fields = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
        fields |= {"epochs": BASE.epochs // 2, "init_from": str(before), "final_sparsity": 1 - 1 / self.compression}
        return Settings(**fields | chain)

    def plans(self, what: str, out: Path) -> list[AttackPlan]:
        """What it is attacked with in a part."""
        pgd: dict[str, Any] = {"attack": "pgd", "epsilon": LINF, "steps": 40, "step_size": "1/30"}
        if what == "robust":
            clean = AttackPlan(epsilon="0", controls=False)  # on all test images
            return [clean, AttackPlan(**pgd, limit=2000 if self.chain == DEEP else 1000, controls=False)]
        if what == "minimal":
            fmn = AttackPlan(attack="fmn", norm="l2", epsilon=L2, limit=500, controls=False)
            return [fmn, AttackPlan(attack="sigma-zero", norm="l0", epsilon=L0, limit=500, controls=False)]
        if what == "trusted" and self.compression in (1, 4, 16):
            cw = AttackPlan(attack="cw", norm="l2", epsilon=L2, limit=100, controls=False)
            return [cw, AttackPlan(attack="bb", norm="l2,l0", epsilon=f"l2={L2};l0={L0}", limit=100, controls=False)]
        if what == "transfer" and self.compression > 1:
            dense = str(out / self._replace(compression=1).folder)
            return [AttackPlan(**pgd, limit=1000, transfer_from=dense)]  # with all controls
        return []


def measured(cell: Cell, what: str, out: Path, splits: Splits | None) -> list[dict[str, Any]]:
    """Trains a network and attacks it, unless that is done; its rows.

    Args:
      cell: which one.
      what: the part.
      out: the experiment's folder.
      splits: the data; None for what is finished alone, of which nothing is trained or attacked.
    """
    run = out / cell.folder
    if splits is not None:
        train(cell.settings(out), run, splits=splits, resume=True, save_seconds=60)
    step = finished_step(run)
    clean = None if step is None else stored_evaluation(run, cell.plans("robust", out)[0], step)
    collapsed = clean is not None and clean["rows"][0]["accuracy"] < COLLAPSED
    rows: list[dict[str, Any]] = []
    for plan in cell.plans(what, out) if step is not None else ():
        if collapsed and plan.epsilon != "0":
            continue
        record = stored_evaluation(run, plan, step or 0)
        if record is None and splits is not None:
            record = evaluate_run(run, plan, dataset=splits.test, batch_size=500)
        if record is not None:
            rows += rows_of(cell, what, record)
            collapsed = collapsed or (plan.epsilon == "0" and rows[0]["accuracy"] < COLLAPSED)
    return rows


COLUMNS = ("split", "sparsity_measured", "num_parameters", "nonzero", "bytes", "flops_sparse")
ATTACKED = ("num_examples", "attack", "norm", "epsilon", "accuracy", "low", "high")


def rows_of(cell: Cell, what: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows to publish of one evaluation: of the first plan the clean accuracy, of the others those under attack, and of
    transfer those of the images that were made on the dense network.

    ``arm`` is the chain; ``compression`` is nominal; ``compression_real`` is all parameters over those that are not zero;
    ``median`` is the median distance over the images that are right, of minimal-norm attacks, empty where half of them was not
    fooled.
    """
    found = record["versions"]
    text = f"bap_jax {found['bap_jax']}, jax {found['jax']}, python {found['python']}"
    clean_alone = len(record["rows"]) == 1
    rows = []
    for row in record["rows"]:
        if (row["attack"] == "clean") != clean_alone or (what == "transfer" and " from " not in row["attack"]):
            continue
        own = {name: row[name] for name in ("data", "model", "sparsity", "seed")}
        own |= {"arm": cell.chain.name, "process": f"c = {cell.compression}", "compression": cell.compression}
        own["compression_real"] = row["num_parameters"] / row["nonzero"]
        own |= {name: row[name] for name in (*COLUMNS, *ATTACKED)}
        own["median"] = record["distances"].get(f"{row['attack']}-{row['norm']}", {}).get("median")
        rows.append(own | {"step": record["step"], "failed_checks": _failed(record), "versions": text})
    return rows


def _failed(record: dict[str, Any]) -> str:
    """The names of the checks on an evaluation that failed."""
    return "; ".join(sorted({check["name"] for check in record["checks"] if check["status"] == "fail"}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where it runs and writes."""

    out: Path = Path("runs/faces")
    """Folder of the runs; what is finished in it is not done again."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else TFDS_DATA_DIR."""
    parts: int | None = None
    """Only so many parts, the first ones: 1 is the depth of one seed."""
    publish: bool = False
    """Write experiments/results/faces_mnist.csv in the end; with --parts 0, of what is finished."""


def main() -> int:
    """Trains, attacks and publishes; a signal ends it with its state saved."""
    try:
        return run()
    except Interrupted as stopped:
        print(f"{str(stopped).partition(';')[0]}; the same command goes on from there")
        return 130


def run() -> int:
    given = tyro.cli(Arguments, description=__doc__)
    set_up_process(None)
    chosen = PARTS if given.parts is None else PARTS[: given.parts]
    splits = load_data(dataclasses.replace(BASE, data_dir=given.data_dir)) if chosen else None
    for number, (what, seed, chain) in enumerate(chosen, 1):
        for compression in COMPRESSIONS:
            cell = Cell(chain, seed, compression)
            rows = measured(cell, what, given.out, splits)
            now, where = datetime.datetime.now().strftime("%H:%M:%S"), f"part {number} of {len(PARTS)}, {what}, {cell.folder}"
            found = " ".join(f"{row['attack']} {row['epsilon']:.3g}: {100 * row['accuracy']:.1f}" for row in rows)
            print(f"{now} {where}: {found}", flush=True)
    if given.publish:
        RESULTS.mkdir(exist_ok=True)
        print(write_csv(published(given.out), RESULTS / f"{NAME}.csv"))
    return 0


def published(out: Path) -> list[dict[str, Any]]:
    """The rows of everything that is finished; those of a dense network stand under every chain that begins with it."""
    cells = ((Cell(chain, seed, c), what) for what, seed, chain in PARTS for c in COMPRESSIONS)
    return [row for cell, what in cells for row in measured(cell, what, out, None)]


if __name__ == "__main__":
    sys.exit(main())
