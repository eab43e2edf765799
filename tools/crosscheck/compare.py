"""Runs every attack in both environments and writes the tables: what ``make crosscheck`` does.

    python -m tools.crosscheck.compare --run runs/NAME --reference .venv-crosscheck/bin/python [--speed]

It attacks the examples that both networks answer correctly. Every point is judged by the network it was made on and by the
other one; a point outside its budget or its box is no success.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.crosscheck.catalogue import Case, cases, distances
from tools.crosscheck.protocol import ROOT, Worker, WorkerError
from tools.crosscheck.tables import budget_table, minimal_table, speed_table, standing_table, write_between

RADII = {
    "mnist": {"linf": 0.25, "l2": 1.5, "l1": 10.0},
    "cifar10": {"linf": 4 / 255, "l2": 0.5, "l1": 8.0},
    "digits": {"linf": 0.1, "l2": 0.5, "l1": 3.0},
}
# What the speed mode times: case, settings in place of the catalogue's, whether at the real budget. At a budget that fools nobody
# every example is attacked to the end on both sides, so that both take the same number of gradients or queries.
TIMED: tuple[tuple[str, dict[str, int], bool], ...] = (
    ("pgd-linf", {"num_steps": 20}, True),
    ("apgd-ce-linf", {"num_steps": 100}, True),
    ("apgd-t-linf", {"num_steps": 20}, False),
    ("fab-t-linf", {"num_steps": 20}, True),
    ("square-linf", {"num_queries": 500}, False),
    ("autoattack-linf", {"num_steps": 100}, True),
)
TINY = 1e-4


class Judged:
    """One implementation's points: distances, and what either network says of them."""

    def __init__(
        self, points: np.ndarray, images: np.ndarray, labels: np.ndarray, here: np.ndarray, there: np.ndarray, case: Case
    ):
        self.distance = distances(images, points, case.norm)
        inside = bool(points.min() >= -1e-6 and points.max() <= 1 + 1e-6)
        self.fools_ours = (here.argmax(axis=1) != labels) & inside
        self.fools_theirs = (there.argmax(axis=1) != labels) & inside

    def success(self, fools: np.ndarray, case: Case, epsilon: float) -> np.ndarray:
        """Whether the point counts."""
        return fools if case.minimal else fools & (self.distance <= epsilon * (1 + 1e-5) + 1e-6)


class Comparison:
    """Two workers, one network, and a folder for what they write."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.folder = Path(arguments.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        cores = sorted(os.sched_getaffinity(0))[: arguments.threads] if hasattr(os, "sched_getaffinity") else [0, 1]
        self.ours = Worker(sys.executable, "tools.crosscheck.ours", cores, self.folder / "ours.log")
        self.theirs = Worker(arguments.reference, "tools.crosscheck.reference", cores, self.folder / "reference.log")
        network = str((self.folder / "network.npz").resolve())
        self.about = self.ours.ask(
            "prepare",
            run=str(Path(arguments.run).resolve()),
            out=network,
            limit=arguments.limit,
            data_dir=arguments.data_dir,
            trust=arguments.trust,
        )
        self.about |= self.theirs.ask("load", path=network)
        if self.about["difference"] > 1e-4:
            raise SystemExit(f"the two networks differ by {self.about['difference']:.1e} in their logits: nothing to compare")
        with np.load(network) as stored:
            self.images, self.labels = stored["images"], stored["labels"]
            self.rows = np.flatnonzero(stored["logits"].argmax(axis=1) == self.labels)
        radii = RADII.get(str(self.about["data"]), RADII["cifar10"])
        given = dict(pair.split("=") for pair in arguments.epsilon)
        self.radii = {**radii, "l0": 0.0, **{norm: float(value) for norm, value in given.items()}}

    def attack(self, worker: Worker, case: Case, seed: int) -> tuple[Judged, np.ndarray | None, float, list[list[Any]]]:
        """One attack in one environment, judged in both; of a cascade, how many images stood after each part."""
        side = "ours" if worker is self.ours else "theirs"
        out, points = self.folder / f"{case.name}-{seed}-{side}.npz", self.folder / "points.npy"
        paths = {"out": str(out.resolve())}
        rows = [int(row) for row in self.rows]
        answer = worker.ask("attack", case=case.name, rows=rows, epsilon=self.radii[case.norm], seed=seed, **paths)
        with np.load(out) as stored:
            attacked = np.ascontiguousarray(stored["images"])
            queries = stored.get("queries")
        if not self.arguments.keep:
            out.unlink()
        np.save(points, attacked)
        logits = []
        for judge in (self.ours, self.theirs):
            judge.ask("predict", path=str(points.resolve()), out=str((self.folder / "logits.npy").resolve()))
            logits.append(np.load(self.folder / "logits.npy"))
        labels = self.labels[self.rows]
        judged = Judged(attacked, self.images[self.rows], labels, logits[0], logits[1], case)
        return judged, queries, float(answer["seconds"]), answer["standing"]

    def compare(self, case: Case) -> dict[str, Any]:
        """A row of the table."""
        seeds = range(self.arguments.seeds if case.start != "none" else 1)
        epsilon, total = self.radii[case.norm], len(self.labels)
        here = [self.attack(self.ours, case, seed) for seed in seeds]
        there = [self.attack(self.theirs, case, seed) for seed in seeds]
        ours = [judged.success(judged.fools_ours, case, epsilon) for judged, *_ in here]
        theirs = [judged.success(judged.fools_theirs, case, epsilon) for judged, *_ in there]
        row: dict[str, Any] = {
            "attack": case.name,
            "reference": case.library,
            "norm": case.norm,
            "start": case.start,
            "seeds": len(seeds),
            "examples": len(self.rows),
            "agree": float(np.mean([np.mean(a == b) for a, b in zip(ours, theirs, strict=True)])),
            "only_here": int(np.sum(ours[0] & ~theirs[0])),
            "only_there": int(np.sum(theirs[0] & ~ours[0])),
            "verdicts_differ": sum(int(np.sum(judged.fools_ours != judged.fools_theirs)) for judged, *_ in here + there),
            "seconds_here": statistics.median(seconds for _, _, seconds, _ in here),
            "seconds_there": statistics.median(seconds for _, _, seconds, _ in there),
        }
        if len(seeds) > 1:
            pairs = itertools.combinations(theirs, 2)
            row["agree_there"] = float(np.mean([np.mean(a == b) for a, b in pairs]))
        if case.minimal:
            return row | self._distances(case, here[0][0], there[0][0], ours[0], theirs[0])
        for name, found in (("here", ours), ("there", theirs)):
            robust = [(len(self.rows) - int(success.sum())) / total for success in found]
            row |= {f"robust_{name}": robust[0], f"lowest_{name}": min(robust), f"highest_{name}": max(robust)}
        row |= {"epsilon": epsilon}
        for name, first in (("here", here[0]), ("there", there[0])):
            if first[3]:
                row[f"standing_{name}"] = first[3]
        if here[0][1] is not None and there[0][1] is not None:
            both = ours[0] & theirs[0]
            for name, queries in (("here", here[0][1]), ("there", there[0][1])):
                row[f"queries_{name}"] = np.quantile(queries[both], (0.25, 0.5, 0.75)).tolist() if both.any() else []
        return row

    def _distances(self, case: Case, here: Judged, there: Judged, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
        both = ours & theirs
        first, second = here.distance[both], there.distance[both]
        ratio = first / np.maximum(second, 1e-12)
        row = {"found_here": float(ours.mean()), "found_there": float(theirs.mean())}
        if both.any():
            row |= {"median_here": float(np.median(first)), "median_there": float(np.median(second))}
            row |= {"quarters_here": np.quantile(first, (0.25, 0.75)).tolist()}
            row |= {"quarters_there": np.quantile(second, (0.25, 0.75)).tolist()}
            row |= {"ratio": float(np.median(ratio)), "ratio_p10": float(np.quantile(ratio, 0.1))}
            row |= {"ratio_p90": float(np.quantile(ratio, 0.9))}
            row |= {"nearer_here": float(np.mean(ratio < 0.99)), "nearer_there": float(np.mean(ratio > 1.01))}
        return row

    def time(self, name: str, settings: dict[str, int], real: bool) -> dict[str, Any]:
        """Seconds on both sides, in turns."""
        case = next(case for case in cases() if case.name == name)
        rows = [int(row) for row in self.rows[: self.arguments.timed_examples]]
        epsilon = self.radii[case.norm] if real else TINY
        asked: dict[str, Any] = {"case": name, "rows": rows, "epsilon": epsilon, "settings": settings}
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for turn in range(self.arguments.turns):
            for side, worker in (("ours", self.ours), ("theirs", self.theirs)):
                seconds[side].append(float(worker.ask("time", warm=turn == 0, **asked)["seconds"]))
        ratios = [a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
        return {
            "attack": name,
            "examples": len(rows),
            "settings": ", ".join(f"{key} {value}" for key, value in settings.items()),
            "epsilon": epsilon,
            "seconds_here": statistics.median(seconds["ours"]),
            "seconds_there": statistics.median(seconds["theirs"]),
            "ratio": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
        }

    def close(self) -> None:
        """Ends both workers."""
        self.ours.close()
        self.theirs.close()


def chosen(names: str) -> list[Case]:
    """The cases whose names begin with one of those given."""
    wanted = names.split(",") if names else [""]
    found = [case for case in cases() if any(case.name.startswith(name) for name in wanted)]
    if not found:
        raise SystemExit(f"--attacks {names}: none of {', '.join(case.name for case in cases())}")
    return found


def collect(what: Sequence[Any], work: Callable[[Any], dict[str, Any]], name: Callable[[Any], str]) -> Iterator[dict[str, Any]]:
    """Rows of what can be compared, one by one; what cannot is said and left out."""
    for item in what:
        try:
            row = work(item)
        except WorkerError as error:
            print(f"{name(item)}: left out: {error}", flush=True)
            continue
        shown = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, float))
        print(f"{name(item)}: {shown}", flush=True)
        yield row


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """All columns of all rows, a missing value empty, a list in brackets."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()} for row in rows
        )


def read_csv(path: Path) -> list[dict[str, Any]]:
    """What :func:`write_csv` wrote; [] if there is no such file."""
    if not path.exists():
        return []
    texts = {"attack", "reference", "norm", "start", "settings"}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{key: cell if key in texts else json.loads(cell) for key, cell in row.items() if cell} for row in rows]


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    """The new rows and those of other attacks that were there, in the catalogue's order."""
    rows = {row["attack"]: row for row in (*old, *new)}
    return [rows[name] for name in order if name in rows]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Our attacks against public implementations, on one network.")
    parser.add_argument("--run", required=True, help="the run folder whose network is attacked")
    parser.add_argument("--name", help="of the network in tables; by default that of the run folder")
    parser.add_argument("--reference", default=".venv-crosscheck/bin/python", help="the interpreter of the other environment")
    parser.add_argument("--out", help="where the workers write; by default runs/crosscheck/NAME")
    parser.add_argument("--data-dir", help="of prepared data sets")
    parser.add_argument("--trust", action="store_true", help="run the code that the run's configuration names: docs/trust.md")
    parser.add_argument("--attacks", default="", help="comma-separated names or beginnings of names; all by default")
    parser.add_argument("--limit", type=int, default=300, help="examples")
    parser.add_argument("--seeds", type=int, default=3, help="of attacks with random starts")
    parser.add_argument("--epsilon", nargs="*", default=[], metavar="NORM=VALUE", help="radii in place of the data set's")
    parser.add_argument("--threads", type=int, default=2, help="cores of either side")
    parser.add_argument("--speed", action="store_true", help="time instead of comparing results")
    parser.add_argument("--turns", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--timed-examples", type=int, default=100)
    parser.add_argument("--keep", action="store_true", help="keep the attacked images")
    parser.add_argument("--docs", default=str(ROOT / "docs"), help="where crosscheck.md and the CSV files go")
    arguments = parser.parse_args()
    arguments.name = arguments.name or Path(arguments.run).name
    arguments.out = arguments.out or str(ROOT / "runs" / "crosscheck" / arguments.name)
    docs = Path(arguments.docs)
    docs.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(arguments)
    kind = "speed" if arguments.speed else "results"
    file, written = docs / f"crosscheck-{arguments.name}-{kind}.csv", 0
    try:
        print(f"{arguments.name}: {comparison.about}, {len(comparison.rows)} correct", flush=True)
        if arguments.speed:
            timed = [item for item in TIMED if any(item[0].startswith(name) for name in arguments.attacks.split(","))]
            found = collect(timed, lambda item: comparison.time(*item), lambda item: item[0])
        else:
            found = collect(chosen(arguments.attacks), comparison.compare, lambda case: case.name)
        for written, row in enumerate(found, 1):  # noqa: B007
            rows = merged(read_csv(file), [row], [case.name for case in cases()])
            write_csv(file, rows)
            write_between(docs / "crosscheck.md", f"{arguments.name} {kind}", page(rows, comparison.about, arguments))
    finally:
        comparison.close()
    if not written:
        raise SystemExit("nothing could be compared")


def page(rows: Sequence[dict[str, Any]], about: dict[str, Any], arguments: argparse.Namespace) -> str:
    """What stands in the docs: the rows of all runs so far."""
    about = {**about, "name": arguments.name}
    if arguments.speed:
        return speed_table(rows, about)
    return "\n\n".join(table for table in (budget_table(rows, about), standing_table(rows), minimal_table(rows)) if table)


if __name__ == "__main__":
    main()
