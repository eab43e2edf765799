"""The tables of a cross-check, as markdown between markers of a page that people write around them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first two columns to the left, numbers to the right."""
    rule = ["---" if column < 2 else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def budget_table(rows: Sequence[Row], about: Row) -> str:
    """Attacks within a budget: robust accuracies and per-example agreement."""
    chosen = [row for row in rows if "robust_here" in row]
    text = (
        f"{about['name']}: {about['model']} on {about['data']} (step {about['step']}); the two networks' logits differ by at "
        f"most {about['difference']:.1e}. n counts the examples that were correct and attacked; robust accuracies are per cent "
        "of all examples."
    )
    if not chosen:
        return text
    header = [
        "attack",
        "reference",
        "n",
        "ε",
        "robust here",
        "robust there",
        "agree",
        "there among seeds",
        "only here",
        "only there",
    ]
    header += ["judged differently", "queries here (quartiles)", "queries there"]
    lines = []
    for row in chosen:
        lines.append([
            row["attack"],
            f"{row['reference']}, start {row['start']}",
            str(row["examples"]),
            f"{row['epsilon']:.4g}",
            _spread(row, "here"),
            _spread(row, "there"),
            f"{100 * row['agree']:.1f} %",
            f"{100 * row['agree_there']:.1f} %" if "agree_there" in row else "–",
            str(row["only_here"]),
            str(row["only_there"]),
            str(row["verdicts_differ"]),
            _queries(row.get("queries_here")),
            _queries(row.get("queries_there")),
        ])  # fmt: skip
    return text + "\n\n" + markdown(header, lines)


def standing_table(rows: Sequence[Row]) -> str:
    """Cascades: how many of the attacked examples stood after each of their attacks, first seed; empty where none was run."""
    chosen = [row for row in rows if "standing_here" in row and "standing_there" in row]
    lines = []
    for row in chosen:
        there = dict(row["standing_there"])
        for stage, count in row["standing_here"]:
            lines.append([row["attack"], stage, str(row["examples"]), str(count), str(there.get(stage, "–"))])
    return markdown(["attack", "after", "n", "standing here", "standing there"], lines) if lines else ""


def minimal_table(rows: Sequence[Row]) -> str:
    """Attacks that look for the nearest point: distances over examples where both found one."""
    header = ["attack", "reference", "n", "found here", "found there", "median here", "median there", "ratio (median, 10–90 %)"]
    header += ["nearer here", "nearer there", "judged differently"]
    lines = []
    for row in rows:
        if "ratio" not in row:
            continue
        lines.append([
            row["attack"],
            row["reference"],
            str(row["examples"]),
            f"{100 * row['found_here']:.1f} %",
            f"{100 * row['found_there']:.1f} %",
            f"{row['median_here']:.4g}",
            f"{row['median_there']:.4g}",
            f"{row['ratio']:.3f} ({row['ratio_p10']:.3f}–{row['ratio_p90']:.3f})",
            f"{100 * row['nearer_here']:.0f} %",
            f"{100 * row['nearer_there']:.0f} %",
            str(row["verdicts_differ"]),
        ])  # fmt: skip
    return markdown(header, lines) if lines else ""


def speed_table(rows: Sequence[Row], about: Row) -> str:
    """Seconds in turns, and their ratio."""
    header = ["attack", "settings", "ε", "examples", "seconds here", "seconds there", "here / there (median, range)"]
    lines = [
        [
            row["attack"],
            row["settings"],
            f"{row['epsilon']:.4g}",
            str(row["examples"]),
            f"{row['seconds_here']:.2f}",
            f"{row['seconds_there']:.2f}",
            f"{row['ratio']:.2f} ({row['lowest']:.2f}–{row['highest']:.2f})",
        ]
        for row in rows
    ]
    return f"{about['name']}: {about['model']} on {about['data']}, torch {about['torch']}.\n\n" + markdown(header, lines)


def write_between(path: Path, name: str, text: str) -> None:
    """Puts the text between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``, at the end of the page if they are not there."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = path.read_text(encoding="utf-8") if path.exists() else "# Our attacks against public implementations\n"
    block = f"{begin}\n{text}\n{end}"
    if begin in page:
        page = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: block, page, flags=re.DOTALL)
    else:
        page = page.rstrip("\n") + f"\n\n{block}\n"
    path.write_text(page, encoding="utf-8")


def _spread(row: Row, side: str) -> str:
    first = f"{100 * row[f'robust_{side}']:.1f}"
    if row["seeds"] == 1:
        return first
    return f"{first} ({100 * row[f'lowest_{side}']:.1f}–{100 * row[f'highest_{side}']:.1f})"


def _queries(quartiles: Sequence[float] | None) -> str:
    return " / ".join(f"{value:.0f}" for value in quartiles) if quartiles else ""
