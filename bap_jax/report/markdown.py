"""A report as Markdown, its pictures beside it as PNG files."""

from __future__ import annotations

from bap_jax.report.page import Report, Section
from bap_jax.report.table import escape_markdown, to_markdown


def report_markdown(report: Report) -> str:
    """The whole report as one Markdown text; pictures are links to ``<name>.png`` in the same folder.

    Example:
      >>> print(report_markdown(Report("Digits", ("It works.",), (), ())))
      # Digits
      <BLANKLINE>
      - It works.
      <BLANKLINE>
    """
    lines = [f"# {escape_markdown(report.title)}", ""]
    lines += [f"- {escape_markdown(sentence)}" for sentence in report.summary] + [""]
    return "\n".join(lines) + "".join(_section(section) for section in report.sections)


def _section(section: Section) -> str:
    parts = [f"\n## {escape_markdown(section.title)}\n"]
    parts += [f"\n{escape_markdown(text)}\n" for text in section.paragraphs]
    parts += ["\n" + to_markdown(table) for table in section.lead]
    parts += [f"\n![{escape_markdown(p.alt)}]({p.name}.png)\n\n*{escape_markdown(p.caption)}*\n" for p in section.pictures]
    parts += ["\n" + to_markdown(table) for table in (*section.tables, *section.more)]
    return "".join(parts)
