"""A report as Markdown, its pictures beside it as PNG files."""

from __future__ import annotations

from bap_jax.report.page import Picture, Report, Section
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
    lines += [f"- {escape_markdown(sentence)}" for sentence in (*report.summary, *report.trust)] + [""]
    top = _picture(report.lead) if report.lead is not None else ""
    top += "\n" + to_markdown(report.scores) if report.scores is not None else ""
    top += f"\nTo repeat it:\n\n    {report.command}\n" if report.command else ""
    return "\n".join(lines) + top + "".join(_section(section) for section in report.sections)


def _picture(picture: Picture) -> str:
    return f"\n![{escape_markdown(picture.alt)}]({picture.name}.png)\n\n*{escape_markdown(picture.caption)}*\n"


def _section(section: Section) -> str:
    parts = [f"\n## {escape_markdown(section.title)}\n"]
    parts += [f"\n{escape_markdown(text)}\n" for text in section.paragraphs]
    parts += ["\n" + to_markdown(table) for table in section.lead]
    parts += [_picture(picture) for picture in section.pictures]
    parts += ["\n" + to_markdown(table) for table in (*section.tables, *section.more)]
    return "".join(parts)
