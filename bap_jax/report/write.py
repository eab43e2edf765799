"""A report as files: report.html, report.md, results.csv and the pictures."""

from __future__ import annotations

import os
from pathlib import Path

from bap_jax.atomic import write_atomic
from bap_jax.errors import SettingError
from bap_jax.report.csv import write_csv
from bap_jax.report.html import report_html
from bap_jax.report.inputs import ReportInput
from bap_jax.report.markdown import report_markdown


def write_report(given: ReportInput, out_dir: str | Path) -> dict[str, Path]:
    """Write a report: one HTML page, the same as Markdown, the rows as CSV, and every picture as PNG and SVG.

    Each file is written atomically; files of an earlier report with the same names are replaced. However many rows there are, the
    page stays below about 3 MB: what does not fit is left out of it, and it says what and where that is
    (:data:`bap_jax.report.html.PAGE_BYTES`).

    Args:
      given: the rows, and what else the report shows.
      out_dir: the folder, made if it is not there.

    Returns:
      File name → path, e.g. ``paths["report.html"]``.

    Raises:
      SettingError: rows that no report can be made of, an unknown status, or a folder that cannot be written to.
    """
    from bap_jax.report.build import build_report  # matplotlib takes its time: only who draws waits for it
    from bap_jax.report.figures import render

    report = build_report(given)
    folder = writable_folder(out_dir)
    files: dict[str, bytes | str] = {}
    for picture in report.pictures:
        files[f"{picture.name}.png"], files[f"{picture.name}.svg"] = render(picture.draw())
    images = {
        name.removesuffix(".svg"): data for name, data in files.items() if name.endswith(".svg") and isinstance(data, bytes)
    }
    files["report.md"] = report_markdown(report)
    files["report.html"] = report_html(report, images)
    paths = {name: write_atomic(folder / name, content) for name, content in files.items()}
    return {**paths, "results.csv": write_csv(given.rows, folder / "results.csv")}


def writable_folder(out_dir: str | Path) -> Path:
    """The folder, made if it is not there; raises SettingError if it cannot be made or written to."""
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError("out_dir", str(out_dir), f"a folder that can be made ({error.strerror})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingError("out_dir", str(out_dir), "a folder that can be written to")
    return folder
