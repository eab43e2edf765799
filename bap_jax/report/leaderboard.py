"""Our runs among the published networks of the adversarial pruning benchmark, by AutoAttack and by clean accuracy."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from bap_jax.atomic import write_atomic
from bap_jax.errors import SettingError
from bap_jax.report.html import SCRIPT, STYLE
from bap_jax.report.rows import CLEAN, Row, accuracy_of, format_epsilon, format_sparsity, in_order
from bap_jax.report.table import MISSING, Cell, Table, to_html, to_markdown
from bap_jax.report.write import writable_folder

Measure = Literal["autoattack", "clean"]
Structure = Literal["US", "S"]
NUM_IMAGES = 10_000  # that the benchmark measures on
EPSILON = 0.031  # L∞, as its code has it; its text says 8/255
_DATA = {"cifar10": "CIFAR-10", "svhn_cropped": "SVHN"}  # as data sets are called here and there
_NETWORKS = {"resnet18": "ResNet-18", "vgg16_survey": "VGG-16"}
_IMPORTED = "imported"  # how the budget of a run begins that was trained elsewhere
_FILTERS = ("data", "network", "structure", "sparsity", "from")


class Entry(NamedTuple):
    """One pruned network."""

    method: str
    data: str  # CIFAR-10, SVHN, or a data set of another name
    model: str  # as bap train --model takes it
    structure: Structure  # single weights, or whole filters and channels
    sparsity: float
    clean: float  # a fraction; NaN where it was not measured
    autoattack: float
    num_clean: int  # images
    num_autoattack: int
    published: bool
    source: str = ""
    date: str = ""  # of a published one
    remarks: tuple[str, ...] = ()  # what differs from the benchmark's protocol

    @property
    def comparable(self) -> tuple[str, str, str, float]:
        """What two networks have to share so that one ranks before the other."""
        return self.data, self.model, self.structure, round(self.sparsity, 4)


class Rank(NamedTuple):
    """A place among the published networks: 1 + how many of them are better."""

    place: int | None  # None: nothing comparable is published, or this was not measured
    best: int | None  # with the measured accuracy one standard error higher
    worst: int | None  # and one lower
    of: int  # how many comparable ones are published


def published() -> tuple[Entry, ...]:
    """The benchmark's leaderboards: CIFAR-10 and SVHN, unstructured and structured, all methods and sparsities.

    Example:
      >>> entries = published()
      >>> len(entries), entries[0].method, entries[0].autoattack
      (154, 'RADMM', 0.4368)

    References:
      Piras et al. 2024, "Adversarial Pruning: A Survey and Benchmark of Pruning Methods for Adversarial Robustness" (public code:
      pralab/AdversarialPruningBenchmark, whose README has the tables).
    """
    text = resources.files("bap_jax.report").joinpath("published.csv").read_text("utf-8")
    found = []
    for row in csv.DictReader(text.splitlines()):
        clean, robust = (round(float(row[name]) / 100, 6) for name in ("clean", "autoattack"))
        entry = Entry(
            row["method"], row["data"], row["model"], "S" if row["structure"] == "S" else "US", float(row["sparsity"]),
            clean, robust, NUM_IMAGES, NUM_IMAGES, True, row["source"], row["date"],
        )  # fmt: skip
        found.append(entry)
    return tuple(found)


def entries_of(rows: Sequence[Row], *, structure: Structure | None = None) -> tuple[Entry, ...]:
    """Our networks as entries: those that AutoAttack (standard, L∞) attacked at the benchmark's ε.

    Accuracies are means over seeds; the number of images is that of one of them. Where several ε near the benchmark's were
    attacked, the nearest is taken. What differs from its protocol is said in ``remarks``.

    Args:
      rows: long-form rows, see :mod:`bap_jax.report.rows`.
      structure: what was pruned; by default what the rows say in their column ``structure``, single weights where there is none.

    Returns:
      One entry per data set, network, arm, process and sparsity, in order of first appearance.

    Example:
      >>> row = {"data": "cifar10", "model": "resnet18", "arm": "blind", "process": "", "sparsity": 0.9, "seed": 0}
      >>> clean = row | {"attack": "clean", "norm": "", "epsilon": 0.0, "accuracy": 0.8, "num_examples": 10000}
      >>> attacked = clean | {"attack": "autoattack", "norm": "linf", "epsilon": 0.031, "accuracy": 0.44}
      >>> [(entry.method, entry.clean, entry.autoattack, entry.remarks) for entry in entries_of([clean, attacked])]
      [('blind', 0.8, 0.44, ())]
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("data", "model", "arm", "process", "sparsity"))
        groups.setdefault(key, []).append(row)
    found = []
    for group in groups.values():
        attacked = [row for row in group if row["attack"] == "autoattack" and row["norm"] == "linf" and _near(row["epsilon"])]
        if not attacked:
            continue
        epsilon = min((float(row["epsilon"]) for row in attacked), key=lambda value: abs(value - EPSILON))
        attacked = [row for row in attacked if float(row["epsilon"]) == epsilon]
        clean = [row for row in group if row["attack"] == CLEAN]
        first, seeds = attacked[0], {row["seed"] for row in attacked}
        method = " ".join(filter(None, (str(first["arm"]), str(first["process"]))))
        entry = Entry(
            method, _DATA.get(str(first["data"]), str(first["data"])), str(first["model"]),
            structure or ("S" if first.get("structure") == "S" else "US"), float(first["sparsity"]),
            _mean(clean), _mean(attacked), _images(clean), _images(attacked), False,
        )  # fmt: skip
        found.append(entry._replace(remarks=_remarks(entry, first, epsilon, len(seeds))))
    return tuple(found)


def _near(epsilon: object) -> bool:
    return abs(float(epsilon) - EPSILON) < 5e-4  # type: ignore[arg-type]  # 8/255 = 0.03137 among them


def _mean(rows: Sequence[Row]) -> float:
    return sum(accuracy_of(row) for row in rows) / len(rows) if rows else math.nan


def _images(rows: Sequence[Row]) -> int:
    return min((int(row["num_examples"]) for row in rows), default=0)


def _remarks(entry: Entry, row: Row, epsilon: float, num_seeds: int) -> tuple[str, ...]:
    """What stands between an entry of ours and the benchmark's protocol."""
    found = []
    if entry.model not in _NETWORKS:
        found.append(f"another network, {entry.model}")
    if entry.data not in _DATA.values():
        found.append("other data")
    if str(row.get("budget", "")).startswith(_IMPORTED):
        found.append("trained elsewhere")
    if entry.num_autoattack != NUM_IMAGES:
        found.append(f"{entry.num_autoattack:,} images")
    if epsilon != EPSILON:
        found.append(f"ε = {format_epsilon(epsilon)}")
    if row.get("split") not in (None, "test"):
        found.append(f"on {row['split']} data")
    return (*found, *([f"mean of {num_seeds} seeds"] if num_seeds > 1 else []))


def standard_error(accuracy: float, num_images: int) -> float:
    """√(p·(1 − p)/n), of an accuracy p that was measured on n images; NaN without images.

    Example:
      >>> standard_error(0.5, 10_000)
      0.005
    """
    return math.sqrt(accuracy * (1 - accuracy) / num_images) if num_images else math.nan


def rank(entry: Entry, others: Sequence[Entry], by: Measure = "autoattack") -> Rank:
    """The place of a network among the published ones of the same data, network, structure and sparsity.

    Args:
      entry: the network; if it is one of ``others`` it does not compete with itself.
      others: those that it is compared with; only published ones count.
      by: ``autoattack`` or ``clean``.

    Returns:
      A :class:`Rank`; equal accuracies share the better place. ``best`` and ``worst`` are the places that the entry would have
      with its accuracy one standard error of its own sample higher and lower.

    Raises:
      SettingError: an unknown measure.

    Example:
      >>> ours = Entry("ours", "CIFAR-10", "resnet18", "US", 0.9, 0.82, 0.452, 10_000, 10_000, published=False)
      >>> rank(ours, published())
      Rank(place=4, best=2, worst=4, of=10)
    """
    if by not in ("autoattack", "clean"):
        raise SettingError("by", by, "'autoattack' or 'clean'")
    rivals = [other for other in others if other.published and other.comparable == entry.comparable and other is not entry]
    value, num_images = getattr(entry, by), getattr(entry, f"num_{by}")
    if not rivals or math.isnan(value):
        return Rank(None, None, None, len(rivals))
    error = standard_error(value, num_images)
    place, best, worst = (1 + sum(getattr(other, by) > value + shift for other in rivals) for shift in (0.0, error, -error))
    return Rank(place, best, worst, len(rivals))


def leaderboard_table(entries: Sequence[Entry]) -> Table:
    """All networks in one table, by AutoAttack within each data set, network, structure and sparsity.

    Places are those of :func:`rank`; an entry of ours is set in bold, its places have their range below, and what differs from
    the benchmark's protocol stands in the last column.
    """
    columns = (
        "method", "data", "network", "structure", "sparsity", "from", "remarks",
        "AutoAttack", "place", "clean", "place (clean)",
    )  # fmt: skip
    ordered = sorted(entries, key=lambda entry: (*entry.comparable, -_known(entry.autoattack), entry.method))
    note = (
        f"Per cent, ± one standard error of the images measured on. AutoAttack: standard, L∞, ε = {EPSILON}, {NUM_IMAGES:,} test "
        "images, unless a remark says otherwise. A place counts the published networks of the same data set, network, structure "
        "and sparsity that are better, plus one; below it, the places at one standard error more and less. Published: "
        f"{', '.join(in_order(f'{entry.source} ({entry.date})' for entry in entries if entry.published))}."
    )
    return Table(
        "Published networks and ours",
        columns,
        tuple(_row(entry, entries) for entry in ordered),
        note,
        num_labels=len(_FILTERS) + 2,
    )


def _row(entry: Entry, entries: Sequence[Entry]) -> tuple[Cell, ...]:
    ours = not entry.published
    return (
        Cell(entry.method, strong=ours),
        Cell(entry.data),
        Cell(_NETWORKS.get(entry.model, entry.model)),
        Cell({"US": "weights", "S": "filters, channels"}[entry.structure]),
        Cell(format_sparsity(entry.sparsity), entry.sparsity),
        Cell("ours" if ours else f"published {entry.date}"),
        Cell("; ".join(entry.remarks)),
        _accuracy(entry.autoattack, entry.num_autoattack, ours),
        _place(rank(entry, entries, "autoattack"), ours),
        _accuracy(entry.clean, entry.num_clean, ours),
        _place(rank(entry, entries, "clean"), ours),
    )


def _known(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _accuracy(value: float, num_images: int, strong: bool) -> Cell:
    if math.isnan(value):
        return Cell(MISSING)
    return Cell(f"{100 * value:.2f}", value, f"± {100 * standard_error(value, num_images):.2f}", strong)


def _place(found: Rank, ours: bool) -> Cell:
    if found.place is None:
        return Cell(MISSING)
    text = f"{found.place} of {found.of + 1}"
    return Cell(text, float(found.place), f"{found.best} to {found.worst}" if ours else "", ours)


_FILTER_STYLE = """
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; margin: 1.2rem 0 0; align-items: end; }
.filters label { display: flex; flex-direction: column; font-size: .85rem; color: var(--dim); }
.filters select, .filters input { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: .25rem .5rem; max-width: 16rem; }
main { max-width: 1400px; }
td.label { white-space: nowrap; } td.long { white-space: normal; }
"""
_FILTER_SCRIPT = """
const filters = document.querySelector(".filters"), shown = document.getElementById("shown");
const text = cell => (cell.querySelector("strong") ?? cell.firstChild)?.textContent.trim() ?? "";
const apply = () => {
  const wanted = [...filters.querySelectorAll("select")].map(select => [Number(select.dataset.column), select.value]);
  const words = filters.querySelector("input").value.toLowerCase();
  let count = 0;
  for (const row of document.querySelector("table").tBodies[0].rows) {
    const fits = wanted.every(([i, value]) => value === "" || text(row.cells[i]) === value);
    row.hidden = !fits || !row.textContent.toLowerCase().includes(words);
    count += !row.hidden;
  }
  shown.textContent = `${count} shown`;
};
filters.addEventListener("input", apply);
filters.addEventListener("submit", event => event.preventDefault());
apply();
"""


def leaderboard_html(entries: Sequence[Entry], *, title: str = "Adversarial pruning: published networks and ours") -> str:
    """The table as one page that sorts by its headings and filters by its labels; nothing is loaded from anywhere.

    Args:
      entries: published ones and ours.
      title: the page's.

    Example:
      >>> "<h1>a &lt; b</h1>" in leaderboard_html(published(), title="a < b")
      True
    """
    table = leaderboard_table(entries)
    selects = "".join(
        f'<label>{html.escape(name)}<select data-column="{place}"><option value="">all</option>'
        + "".join(f"<option>{html.escape(value)}</option>" for value in _values(table, place))
        + "</select></label>\n"
        for place, name in enumerate(table.columns)
        if name in _FILTERS
    )
    found = '<label>containing<input type="search"></label>\n<span id="shown" class="note" role="status"></span>'
    heading = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>{STYLE}{_FILTER_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{heading}</h1>\n"
        f'<form class="filters" aria-label="Filters">\n{selects}{found}\n</form>\n'
        f"{to_html(table)}</main>\n<script>{SCRIPT}{_FILTER_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _values(table: Table, place: int) -> list[str]:
    cells = in_order(row[place] for row in table.rows)
    return in_order(cell.text for cell in sorted(cells, key=lambda cell: (cell.sort is None, cell.sort or 0.0, cell.text)))


def write_leaderboard(rows: Sequence[Row], out_dir: str | Path) -> dict[str, Path]:
    """Write our networks among the published ones: ``leaderboard.html`` and ``leaderboard.md``.

    Args:
      rows: long-form rows of our evaluations.
      out_dir: the folder, made if it is not there.

    Returns:
      File name → path.

    Raises:
      SettingError: no network of ours was attacked as the benchmark does, or a folder that cannot be written to.
    """
    ours = entries_of(rows)
    if not ours:
        expected = f"an evaluation by autoattack (linf) at ε = {EPSILON} or 8/255: bap evaluate RUN --attack autoattack"
        raise SettingError("--leaderboard", "no evaluation that can be compared", expected)
    entries = (*published(), *ours)
    folder = writable_folder(out_dir)
    files = {"leaderboard.html": leaderboard_html(entries), "leaderboard.md": to_markdown(leaderboard_table(entries))}
    return {name: write_atomic(folder / name, content) for name, content in files.items()}
