"""A report as one HTML page that needs nothing else: no network, no other file.

Pictures are inline SVG whose text, lines and background take their colours from the page. The page follows the reader's light or
dark scheme, prints (on white), and its tables sort by a click on a heading, or by Tab and Enter.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from bap_jax.report.inline import colour_rules, inline_svg
from bap_jax.report.page import Picture, Report, slug
from bap_jax.report.table import Table, to_html

STYLE = """
:root { color-scheme: light dark; LIGHT
  --ink: #1c1c1e; --dim: #55585f; --page: #ffffff; --card: #f4f5f7; --line: #d5d8dd; --accent: #0b5a94;
  --passed: #0a6b45; --warned: #8a5a00; --failed: #b3261e; }
@media (prefers-color-scheme: dark) { :root { DARK
  --ink: #ececf0; --dim: #aeb2ba; --page: #15171a; --card: #202328; --line: #3b4048; --accent: #8cc4f5;
  --passed: #6bd3a4; --warned: #f0bb55; --failed: #ff9188; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .8rem; padding-top: .6rem; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
nav { font-size: .9rem; margin: 1rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
a { color: var(--accent); }
p { overflow-wrap: anywhere; }
.summary { background: var(--card); border-left: 4px solid var(--accent); border-radius: 6px; padding: .8rem 1.1rem; }
.summary.failed { border-left-color: var(--failed); }
.summary p { margin: .45rem 0; }
.summary.failed p:first-child { font-weight: 650; color: var(--failed); }
figure { margin: 1.2rem 0; }
.command { overflow-wrap: anywhere; } code { background: var(--card); border-radius: 4px; padding: .1rem .35rem; }
.filter input { font: inherit; color: inherit; background: var(--page); border: 1px solid var(--line); border-radius: 4px;
  padding: .2rem .5rem; max-width: 100%; }
tr[hidden] { display: none; }
.card { background: var(--cffffff); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; overflow-x: auto; }
figure svg { display: block; margin: 0 auto; width: var(--width); height: auto;
  max-width: 100%; min-width: min(var(--width), 38rem); }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg image { image-rendering: pixelated; }
.glyphs { position: absolute; width: 0; height: 0; }
figcaption, .note { color: var(--dim); font-size: .9rem; margin: .45rem 0 0; }
.scroll { overflow-x: auto; margin-top: 1.3rem; }
.scroll:focus-visible, .card:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
details { margin-top: 1.3rem; } summary { cursor: pointer; font-weight: 600; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .35rem; position: sticky; left: 0; }
th, td { padding: .34rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th.label, td.label { text-align: left; }
td.label { overflow-wrap: break-word; max-width: 26rem; }
td:not(.label), td.passed, td.warned, td.failed { white-space: nowrap; }
td.label:first-child { min-width: 7rem; } td.long { min-width: 13rem; }
td small { display: block; color: var(--dim); font-size: .76rem; }
th { vertical-align: bottom; background: var(--card); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th button::after { content: "\\00a0\\2195"; color: var(--dim); font-weight: 400; opacity: .45; }
th[aria-sort=ascending] button::after { content: "\\00a0\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\00a0\\2193"; opacity: 1; }
td.passed { color: var(--passed); } td.warned { color: var(--warned); } td.failed { color: var(--failed); }
td.passed::before { content: "\\2713\\00a0"; }
td.warned::before { content: "!\\00a0"; } td.failed::before { content: "\\2717\\00a0"; }
@media (max-width: 30rem) { main { padding: 1.2rem .8rem 3rem; } h1 { font-size: 1.5rem; } }
@media print {
  :root { color-scheme: light; LIGHT
    --ink: #000; --dim: #333; --page: #fff; --card: #f2f2f2; --line: #999; --accent: #000;
    --passed: #0a6b45; --warned: #6b4500; --failed: #8c0000; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; }
  .scroll, .card { overflow: visible; } th button::after { content: none; }
  figure, tr, .summary { break-inside: avoid; } h2, caption, thead { break-after: avoid; } .card { border: 0; padding: 0; }
  figure svg { min-width: 0; } table { font-size: 8pt; max-width: 100%; } th, td { padding: .2rem .35rem; }
  td:not(.label) { white-space: normal; } td.label, td.long, td.label:first-child { min-width: 0; overflow-wrap: anywhere; }
}
""".replace("LIGHT", colour_rules(dark=False)).replace("DARK", colour_rules(dark=True))

SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent.trim();
  const gone = text => text === "\\u2013" || text === "";
  heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const order = (a, b) => {
      const x = value(a, i), y = value(b, i);
      if (gone(x) || gone(y)) return gone(x) - gone(y);  // what is missing stays at the end
      const both = Number(x) === Number(y) ? 0 : x - y;  // two infinities are equal, their difference is no number
      return sign * (Number.isNaN(both) ? x.localeCompare(y, undefined, {numeric: true}) : both);
    };
    body.append(...[...body.rows].sort(order));
  }));
}
document.querySelector("#arms")?.addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/[,;]/).map(word => word.trim()).filter(word => word);
  for (const row of document.querySelectorAll("tr[data-arm]")) {
    row.hidden = words.length > 0 && !words.some(word => row.dataset.arm.toLowerCase().includes(word));
  }
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));
"""
FILTER = (
    '<label class="filter">Only arms <input id="arms" type="search" placeholder="blind, uniform 0.2" '
    'title="Only the lines of these arms, in all tables"></label>\n'
)
PAGE_BYTES = 2_800_000  # of a page; pictures and detailed tables that would not fit are left out, and the page says so


def report_html(report: Report, images: Mapping[str, bytes], *, limit: int = PAGE_BYTES) -> str:
    """The whole report as one self-contained page.

    Args:
      report: its content.
      images: picture name → SVG; one for every picture of the report.
      limit: bytes of the page. The first picture of every section, then the second ones and so on, and then the tables in
        ``more`` are put into it as long as they fit; where one is left out a line says where it is. Everything else always stands
        in it.

    Returns:
      HTML. Every text is escaped; nothing is loaded from anywhere.

    Raises:
      KeyError: a picture has no image.

    Example:
      >>> "<h1>a &lt; b</h1>" in report_html(Report("a < b", (), (), ()), {})
      True
    """
    failed = any(check.status == "failed" for check in report.checks)
    anchors = [f"s{i}-{slug(section.title)}" for i, section in enumerate(report.sections)]
    links = "".join(f'<a href="#{a}">{html.escape(s.title)}</a>\n' for a, s in zip(anchors, report.sections, strict=True))
    top = "" if report.scores is None else to_html(report.scores)
    always = [[_tables(section.lead), _tables(section.tables)] for section in report.sections]
    fixed = sum(len(text.encode()) for text in (STYLE, SCRIPT, top, *(text for texts in always for text in texts)))
    page = _Page(limit - fixed - 4096)
    in_turn = sorted(((i, p) for s in report.sections for i, p in enumerate(s.pictures)), key=lambda pair: pair[0])
    lead = "" if report.lead is None else page.figure(report.lead, images[report.lead.name])
    drawn = {picture.name: page.figure(picture, images[picture.name]) for _, picture in in_turn}
    more = [page.more(section.more, section.fold) for section in report.sections]
    body = "".join(
        f'<section id="{anchor}">\n<h2>{html.escape(section.title)}</h2>\n{_paragraphs(section.paragraphs)}'
        f"{first}{''.join(drawn[picture.name] for picture in section.pictures)}{tables}{details}</section>\n"
        for anchor, section, (first, tables), details in zip(anchors, report.sections, always, more, strict=True)
    )
    glyphs = f'<svg class="glyphs" aria-hidden="true"><defs>{"".join(page.glyphs.values())}</defs></svg>\n' if page.glyphs else ""
    title, summary = html.escape(report.title), _paragraphs([*report.summary, *page.left_out()])
    command = f'<p class="command">To repeat it: <code>{html.escape(report.command)}</code></p>\n' if report.command else ""
    trust = f'<div class="summary{" failed" if failed else ""}">\n{_paragraphs(report.trust)}</div>\n' if report.trust else ""
    arms = {row[0].text for row in report.scores.rows} if report.scores is not None else set()
    search = FILTER if len(arms) > 1 else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{glyphs}<main>\n<h1>{title}</h1>\n"
        f'<div class="summary{" failed" if failed and not report.trust else ""}">\n{summary}</div>\n{lead}{top}{command}{trust}'
        f'<nav aria-label="Sections">\n{links}{search}</nav>\n{body}'
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(text)}</p>\n" for text in texts)


def _tables(tables: Sequence[Table]) -> str:
    return "".join(to_html(table) for table in tables)


class _Page:
    """A page under way: how many bytes are left, the letters that its pictures use, and what was left out."""

    def __init__(self, room: int):
        self.room, self.glyphs = room, dict[str, str]()
        self.num_pictures = self.num_tables = 0

    def figure(self, picture: Picture, svg: bytes) -> str:
        image = inline_svg(svg, picture.name)
        alt, caption = html.escape(picture.alt), html.escape(picture.caption)
        drawn = image.markup.replace("<svg", f'<svg role="img" aria-label="{alt}" style="--width:{image.width:.0f}px"', 1)
        new = "".join(outline for name, outline in image.glyphs.items() if name not in self.glyphs)
        if not self._takes(drawn + new + alt + caption):
            self.num_pictures += 1
            return f'<p class="note">{alt} Left out of this page: see {picture.name}.png or {picture.name}.svg beside it.</p>\n'
        self.glyphs |= image.glyphs
        card = f'<div class="card" tabindex="0" role="region" aria-label="{alt}">{drawn}</div>'
        return f"<figure>{card}<figcaption>{caption}</figcaption></figure>\n"

    def more(self, tables: Sequence[Table], fold: str = "") -> str:
        rendered = [to_html(table) for table in tables]
        kept = [text for text in rendered if self._takes(text)]
        missing = len(rendered) - len(kept)
        self.num_tables += missing
        note = f'<p class="note">Left out of this page: {_number(missing, "table")}, see report.md.</p>\n' if missing else ""
        summary = f"<summary>{html.escape(fold) or _number(len(kept), 'more table')}</summary>"
        return (f"<details>\n{summary}\n{''.join(kept)}</details>\n" if kept else "") + note

    def left_out(self) -> list[str]:
        """What does not stand in the page, in words."""
        pictures = f"{_number(self.num_pictures, 'picture')} (PNG and SVG files beside it)" if self.num_pictures else ""
        tables = f"{_number(self.num_tables, 'detailed table')} (in report.md)" if self.num_tables else ""
        what = " and ".join(part for part in (pictures, tables) if part)
        return [f"To keep this page small it leaves out {what}."] if what else []

    def _takes(self, text: str) -> bool:
        size = len(text.encode()) + 200  # what is put around it
        if size > self.room:
            return False
        self.room -= size
        return True


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
