"""The page: valid, readable in every scheme, small however much there is to say, and with the numbers of the rows."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from bap_jax.report import ReportInput
from bap_jax.report.build import build_report
from bap_jax.report.html import SCRIPT, STYLE, report_html
from bap_jax.report.page import Picture, Report, Section
from bap_jax.report.table import Cell, Table

VOID = {"meta", "link", "br", "img", "input", "hr"}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 60"><path d="M 0 0 L 1 1" style="fill: #1a1a1a"/></svg>'


class Reader(HTMLParser):
    """Tags that are open, tables as texts, and what was not closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.wrong, self.tables, self.inside = [], [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th", "small"):
            self.inside = tag
            if tag != "small":
                self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)
        self.inside = "" if tag in ("td", "th", "small") else self.inside

    def handle_data(self, data):
        if self.inside in ("td", "th"):
            self.tables[-1][-1][-1] += data


def images_of(report, svg=SVG):
    return {picture.name: svg for picture in report.pictures}


@pytest.fixture(scope="module")
def reported(make_rows):
    rows = make_rows()
    rows = [row for row in rows if (row["arm"], row["sparsity"], row["epsilon"]) != ("blind", 0.97, 0.3)]
    report = build_report(ReportInput(rows, title="t", num_resamples=20))
    return rows, report_html(report, images_of(report))


def test_every_tag_is_closed_in_order(reported):
    reader = Reader(reported[1])
    assert reader.open == [] and reader.wrong == []


def test_every_number_of_a_cell_table_is_the_mean_of_its_rows(reported):
    rows, page = reported
    checked = 0
    for table, sparsity in zip([t for t in Reader(page).tables if t[0][:2] == ["arm", "clean"]], (0.8, 0.97), strict=True):
        assert table[0] == ["arm", "clean", "ε = 0.1", "ε = 0.2", "ε = 0.3", "mean"]
        for arm, *numbers in table[1:]:
            for epsilon, said in zip((0, 0.1, 0.2, 0.3), numbers, strict=False):
                mine = [r for r in rows if (r["arm"], r["sparsity"], r["epsilon"]) == (arm, sparsity, epsilon)]
                assert said == (f"{100 * np.mean([r['accuracy'] for r in mine]):.1f}" if mine else "–")
                checked += 1
    assert checked == 2 * 4 * 4


def test_colours_are_defined_for_light_dark_and_print(reported):
    used = set(re.findall(r"var\((--[\w-]+)\)", reported[1])) - {"--width"}
    dark, printed = STYLE.index("@media (prefers-color-scheme: dark)"), STYLE.index("@media print")
    for part in (STYLE[:dark], STYLE[dark : STYLE.index("* {", dark)], STYLE[printed:]):
        assert used <= set(re.findall(r"(--[\w-]+):", part))


def test_wide_things_scroll_and_can_be_reached_by_keyboard(reported):
    scrolls = re.findall(r'<div class="(?:scroll|card)"([^>]*)>', reported[1])
    assert len(scrolls) > 5 and all('tabindex="0"' in told and 'aria-label="' in told for told in scrolls)
    assert re.search(r"\.scroll \{ overflow-x: auto", STYLE) and re.search(r"\.card \{[^}]*overflow-x: auto", STYLE)
    heads = re.findall(r"<th [^>]*>(.*?)</th>", reported[1])
    assert all(head.startswith('<button type="button">') for head in heads)  # Tab reaches it, Enter sorts


def test_what_is_missing_or_infinite_can_be_sorted():
    table = Table("", ("a",), ((Cell("–"),), (Cell("inf", float("inf")),), (Cell("0.3", 0.1 + 0.2),)))
    page = report_html(Report("t", (), (), (Section("s", tables=(table,)),)), {})
    assert re.findall(r"<td class=\"label\"( data-sort=\"[^\"]*\")?>", page) == ["", ' data-sort="Infinity"', ' data-sort="0.3"']
    assert "gone(x) - gone(y)" in SCRIPT and r'"\u2013"' in SCRIPT  # the dash goes to the end, whichever way it sorts


def test_a_page_has_a_size_and_says_what_it_leaves_out():
    def picture(name):
        return Picture(name, "c", f"alt of {name}", lambda: None)

    long = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="' + b"L 1 1 " * 5000 + b'"/></svg>'
    tables = tuple(Table(f"t{i}", ("a",), ((Cell("x" * 9000),),)) for i in range(4))
    sections = tuple(Section(f"s{i}", pictures=(picture(f"p{i}"), picture(f"q{i}")), more=tables) for i in range(3))
    report = Report("t", ("Found.",), (), sections)
    whole = report_html(report, images_of(report, long))
    assert "leaves out" not in whole and whole.count("<summary>4 more tables") == 3
    small = report_html(report, images_of(report, long), limit=150_000)
    assert len(small.encode()) < 150_000
    assert "To keep this page small it leaves out 2 pictures (PNG and SVG files beside it) and 11 detailed tables" in small
    shown = re.findall(r'aria-label="alt of (\w+)" style', small)
    assert shown == ["p0", "q0", "p1", "p2"]  # the first of every section comes before the second of any
    assert "see q2.png or q2.svg" in small and "see report.md" in small and "alt of q2" in small
    assert Reader(small).wrong == [] and not re.search(r'(?:src|href)="(?!#|data:)', small)


def test_many_arms_sparsities_and_attacks_are_folded_with_a_word(make_rows):
    rows = make_rows({f"arm {i:02d}": (0.9, 0.01 * i) for i in range(14)}, tuple(i / 20 for i in range(14)), ("p",), (0,))
    attacks = [row | {"attack": name} for name in ("b", "c", "d") for row in rows if row["epsilon"]]
    report = build_report(ReportInput(rows + attacks, title="t", num_resamples=5))
    overview, comparison = report.sections[:2]
    assert [len(table.rows) for table in (*overview.lead, *overview.more)] == [4, 4 * 14]
    assert {row[3].text for row in overview.lead[0].rows} == {"arm 13"}
    captions = {picture.name: picture.caption for picture in comparison.pictures}
    assert "the 12 of 14 arms with the best AER score" in captions["aer"]
    assert "the 8 of 14 arms" in captions["security"] and "12 of 14 sparsities" in captions["security"]
    assert report.lead.name == "stability" and "Drawn" not in report.lead.caption and "stability" not in captions
    assert not comparison.tables and len(comparison.more) == 14  # one per sparsity, on demand
    assert len(report.summary) == 4 and "all 4 attacks" in report.summary[-1]
    assert any("under b" in text or "of b" in text for text in report.sections[2].paragraphs)


def test_checks_that_passed_are_folded_where_there_are_many(make_rows):
    checks = [{"name": f"c{i}", "status": "passed"} for i in range(20)] + [{"name": "bad", "status": "warned"}]
    report = build_report(ReportInput(make_rows(seeds=(0,)), title="t", checks=checks, num_resamples=5))
    section = next(section for section in report.sections if section.title == "Checks")
    assert "20 of 21 checks passed" in section.paragraphs[0]
    assert [len(table.rows) for table in (*section.tables, *section.more)] == [1, 20]


def test_a_picture_without_an_image_is_an_error():
    report = Report("t", (), (), (Section("s", pictures=(Picture("p", "c", "a", lambda: None),)),))
    with pytest.raises(KeyError):
        report_html(report, {})
