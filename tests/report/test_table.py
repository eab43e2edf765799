"""One table, three renderings; no text gets out of its field."""

import io
from html.parser import HTMLParser

from rich.console import Console

from bap_jax.report.measures import Interval
from bap_jax.report.table import Cell, Table, percent_cell, to_html, to_markdown, to_rich

NASTY = "<b>&\"'[red]|x"
TABLE = Table(
    "A title",
    ("arm", "accuracy"),
    ((Cell(NASTY), percent_cell(Interval(0.5, 0.4, 0.6), strong=True)), (Cell("b"), percent_cell(Interval(float("nan"))))),
    "a note",
)


class Texts(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def screen(table, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(to_rich(table))
    return console.file.getvalue()


def test_html_escapes_and_carries_the_sort_key():
    page = Texts(to_html(TABLE))
    assert NASTY in page.texts and "b" not in [tag for tag, _ in page.tags]
    cells = [attributes for tag, attributes in page.tags if tag == "td"]
    assert [cell.get("data-sort") for cell in cells] == [None, "0.5", None, None]
    assert "40.0 to 60.0" in page.texts and "–" in page.texts


def test_a_status_is_a_word_and_a_colour():
    page = to_html(Table("", ("check", "status"), ((Cell("x"), Cell("failed", tone="failed")),), num_labels=2))
    assert '<td class="label failed">failed</td>' in page


def test_markdown_has_one_line_per_row_and_as_many_fields():
    lines = to_markdown(TABLE).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert {line.replace("\\|", "").count("|") for line in table} == {3}
    assert "**50.0** (40.0 to 60.0)" in lines[4] and "<b>" not in lines[4] and lines[5] == "| b | – |"


def test_screen_takes_brackets_literally():
    text = screen(TABLE)
    assert NASTY in text and "50.0" in text and "–" in text


def test_missing_is_a_dash_and_never_zero():
    assert percent_cell(Interval(float("nan"))) == Cell("–", None, "", False)
    assert percent_cell(Interval(0.0)).text == "0.0"
    assert percent_cell(Interval(0.5)).detail == "–"
