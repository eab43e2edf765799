"""One table, three renderings: the screen (rich), Markdown and HTML."""

from __future__ import annotations

import html
import re
from typing import NamedTuple

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from bap_jax.report.measures import Interval

MISSING = "–"
LONG = 24  # letters of a label that gets a wide column
TONES = {"passed": "green", "warned": "yellow", "failed": "red"}


class Cell(NamedTuple):
    """One field: what is read, what it sorts by, and how it looks."""

    text: str
    sort: float | str | None = None  # None: by its text
    detail: str = ""  # small print, e.g. the interval; not on the screen
    strong: bool = False
    tone: str = ""  # "passed", "warned", "failed": a colour on top of the word, never instead of it
    link: str = ""  # where it leads, relative to the report's folder


class Table(NamedTuple):
    """A table: the first ``num_labels`` columns are labels (left), the rest numbers (right)."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    num_labels: int = 1


def percent(value: float, digits: int = 1) -> str:
    """A fraction in per cent without the sign, "–" if it is missing.

    Example:
      >>> percent(0.5234), percent(float("nan"))
      ('52.3', '–')
    """
    return MISSING if value != value else f"{100 * value:.{digits}f}"


def interval_text(interval: Interval, digits: int = 1) -> str:
    """The interval in per cent, "–" if it is not defined.

    Example:
      >>> interval_text(Interval(0.5, 0.41, 0.59)), interval_text(Interval(0.5))
      ('41.0 to 59.0', '–')
    """
    return f"{percent(interval.low, digits)} to {percent(interval.high, digits)}" if interval.known else MISSING


def percent_cell(interval: Interval, *, strong: bool = False, digits: int = 1) -> Cell:
    """A number in per cent with its interval in small print."""
    missing = interval.value != interval.value
    detail = "" if missing else interval_text(interval, digits)
    return Cell(percent(interval.value, digits), None if missing else interval.value, detail, strong)


def without_empty(table: Table) -> Table:
    """The table without columns of numbers in which every line is missing.

    Example:
      >>> without_empty(Table("", ("a", "b", "c"), ((Cell("x"), Cell("–"), Cell("1")),))).columns
      ('a', 'c')
    """
    kept = [
        i
        for i in range(len(table.columns))
        if i < table.num_labels or not table.rows or any(row[i].text not in ("", MISSING) for row in table.rows)
    ]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return table._replace(columns=tuple(table.columns[i] for i in kept), rows=rows)


def to_rich(table: Table) -> RichTable:
    """The table for a rich console. Text is taken literally: square brackets are no markup."""
    note = Text(table.note) if table.note else None
    rich = RichTable(title=Text(table.title), box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption=note)
    rich.title_justify = rich.caption_justify = "left"
    for i, name in enumerate(table.columns):
        rich.add_column(Text(name), justify="left" if i < table.num_labels else "right", no_wrap=i >= table.num_labels)
    for row in table.rows:
        rich.add_row(*(Text(cell.text, style=("bold " if cell.strong else "") + TONES.get(cell.tone, "")) for cell in row))
    return rich


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table.

    Example:
      >>> print(escape_markdown("a|b *c* <d>"))
      a\\|b \\*c\\* &lt;d&gt;
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", text).replace("\r", "").replace("\n", " ")


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, title and note included."""
    lines = [f"**{escape_markdown(table.title)}**", ""] if table.title else []
    lines.append("| " + " | ".join(escape_markdown(name) for name in table.columns) + " |")
    lines.append("|" + "|".join(" :-- " if i < table.num_labels else " --: " for i in range(len(table.columns))) + "|")
    lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in table.rows]
    if table.note:
        lines += ["", escape_markdown(table.note)]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f"**{text}**" if cell.strong and text.strip() else text
    return f"{text} ({escape_markdown(cell.detail)})" if cell.detail and cell.detail != MISSING else text


def to_html(table: Table) -> str:
    """The table in HTML, every text escaped; its headings are buttons that a page's script may use to sort."""
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    head = "".join(
        f'<th scope="col"{_class("label" * (i < table.num_labels))}><button type="button">{html.escape(name)}</button></th>'
        for i, name in enumerate(table.columns)
    )
    arm = table.columns.index("arm") if "arm" in table.columns else None
    lines = (
        f"<tr{_of_arm(row, arm)}>{''.join(_html_cell(cell, i < table.num_labels) for i, cell in enumerate(row))}</tr>\n"
        for row in table.rows
    )
    body = "".join(lines)
    caption = f"<caption>{html.escape(table.title)}</caption>" if table.title else ""
    label = html.escape(table.title or ", ".join(table.columns))
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
    return f"{scroll}<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>{note}\n"


def _of_arm(row: tuple[Cell, ...], column: int | None) -> str:
    """What a page's filter of arms looks at."""
    return "" if column is None else f' data-arm="{html.escape(row[column].text)}"'


def _html_cell(cell: Cell, is_label: bool) -> str:
    kinds = (
        "label" if is_label else "",
        "long" if is_label and len(cell.text) > LONG else "",
        cell.tone if cell.tone in TONES else "",
    )
    names = " ".join(name for name in kinds if name)
    sort = "" if cell.sort is None else f' data-sort="{html.escape(_sort_key(cell.sort))}"'
    text = html.escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.strong else text
    text = f'<a href="{html.escape(cell.link)}">{text}</a>' if cell.link else text
    detail = f"<small>{html.escape(cell.detail)}</small>" if cell.detail and cell.detail != MISSING else ""
    return f"<td{_class(names)}{sort}>{text}{detail}</td>"


def _sort_key(value: float | str) -> str:
    """What a page's script compares: as JavaScript reads it, and no longer than it has to be."""
    return f"{value:.7g}".replace("inf", "Infinity") if isinstance(value, float) else str(value)


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""
