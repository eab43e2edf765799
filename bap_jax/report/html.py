"""A report as one HTML page that needs nothing else: no network, no other file.

Pictures are inline SVG (base64), on a light card in both colour schemes. The page follows the reader's light or dark scheme,
prints, and its tables sort by a click on a heading.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from bap_jax.report.content import Picture, Report, Section, slug
from bap_jax.report.table import to_html

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c1c1e; --dim: #55585f; --page: #ffffff; --card: #f4f5f7; --line: #d5d8dd; --accent: #0b5a94;
  --passed: #0a6b45; --warned: #8a5a00; --failed: #b3261e; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #ececf0; --dim: #aeb2ba; --page: #15171a; --card: #202328; --line: #3b4048; --accent: #8cc4f5;
  --passed: #6bd3a4; --warned: #f0bb55; --failed: #ff9188; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .8rem; padding-top: .6rem; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
nav { font-size: .9rem; margin: 1rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
a { color: var(--accent); }
.summary { background: var(--card); border-left: 4px solid var(--accent); border-radius: 6px; padding: .8rem 1.1rem; }
.summary.failed { border-left-color: var(--failed); }
.summary p { margin: .45rem 0; }
.summary.failed p:first-child { font-weight: 650; color: var(--failed); }
figure { margin: 1.2rem 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.card { background: #ffffff; border: 1px solid var(--line); border-radius: 8px; padding: .8rem; }
figcaption, .note { color: var(--dim); font-size: .9rem; margin: .45rem 0 0; }
.scroll { overflow-x: auto; margin-top: 1.3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .35rem; }
th, td { padding: .34rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th.label, td.label { text-align: left; overflow-wrap: anywhere; }
td:not(.label) { white-space: nowrap; }
td.label:first-child { min-width: 7rem; }
td small { display: block; color: var(--dim); font-size: .76rem; }
th { vertical-align: bottom; background: var(--card); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td.passed { color: var(--passed); } td.warned { color: var(--warned); } td.failed { color: var(--failed); }
td.passed::before { content: "\\2713\\00a0"; }
td.warned::before { content: "!\\00a0"; } td.failed::before { content: "\\2717\\00a0"; }
@media print {
  :root { --ink: #000; --dim: #333; --page: #fff; --card: #f2f2f2; --line: #999; --accent: #000;
    --passed: #0a6b45; --warned: #6b4500; --failed: #8c0000; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; } .scroll { overflow: visible; }
  figure, table, tr, .summary { break-inside: avoid; } h2, caption { break-after: avoid; } .card { border: 0; padding: 0; }
  table { font-size: 8.5pt; } th, td { padding: .2rem .4rem; }
}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].innerText.trim();
  heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const gone = text => text === "\\u2013" || text === "";
    const order = (a, b) => {
      const x = value(a, i), y = value(b, i);
      if (gone(x) || gone(y)) return gone(x) - gone(y);  // what is missing stays at the end
      const both = x - y, sign = up ? 1 : -1;
      return sign * (Number.isNaN(both) ? x.localeCompare(y, undefined, {numeric: true}) : both);
    };
    body.append(...[...body.rows].sort(order));
  }));
}
"""


def report_html(report: Report, images: Mapping[str, bytes]) -> str:
    """The whole report as one self-contained page.

    Args:
      report: its content.
      images: picture name → SVG; one for every picture of the report.

    Returns:
      HTML. Every text is escaped; nothing is loaded from anywhere.

    Example:
      >>> "<h1>a &lt; b</h1>" in report_html(Report("a < b", (), (), ()), {})
      True
    """
    failed = any(check.status == "failed" for check in report.checks)
    summary = "".join(f"<p>{html.escape(text)}</p>\n" for text in report.summary)
    anchors = [f"s{i}-{slug(section.title)}" for i, section in enumerate(report.sections)]
    links = "".join(f'<a href="#{a}">{html.escape(s.title)}</a>\n' for a, s in zip(anchors, report.sections, strict=True))
    body = "".join(_section(s, a, images) for a, s in zip(anchors, report.sections, strict=True))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{html.escape(report.title)}</h1>\n"
        f'<div class="summary{" failed" if failed else ""}">\n{summary}</div>\n<nav aria-label="Sections">\n{links}</nav>\n{body}'
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _section(section: Section, anchor: str, images: Mapping[str, bytes]) -> str:
    paragraphs = "".join(f"<p>{html.escape(text)}</p>\n" for text in section.paragraphs)
    pictures = "".join(_figure(picture, images[picture.name]) for picture in section.pictures)
    lead = "".join(to_html(table) for table in section.lead)
    tables = "".join(to_html(table) for table in section.tables)
    return f'<section id="{anchor}">\n<h2>{html.escape(section.title)}</h2>\n{paragraphs}{lead}{pictures}{tables}</section>\n'


def _figure(picture: Picture, svg: bytes) -> str:
    data = base64.b64encode(svg).decode()
    image = f'<img alt="{html.escape(picture.alt)}" src="data:image/svg+xml;base64,{data}">'
    return f'<figure><div class="card">{image}</div><figcaption>{html.escape(picture.caption)}</figcaption></figure>\n'
