"""One report on several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bap_jax.report import ReportInput, write_report
from bap_jax.runs.report_inputs import (
    checks_of,
    compactions_of,
    differing_settings,
    distances_of,
    folders_of,
    histories_of,
    layers_of,
    notes_of,
    rows_of,
    settings_table,
    stages_of,
    versions_table,
)
from bap_jax.runs.samples import samples_of
from bap_jax.runs.trust import NOTHING, Trust


def write_runs_report(
    records: list[dict[str, Any]],
    out: Path,
    *,
    title: str,
    notes: tuple[str, ...] = (),
    samples: int = 8,
    data_dir: str | None = None,
    trust: Trust = NOTHING,
    command: str = "",
) -> dict[str, Path]:
    """One report on the evaluations of several runs, with training history, layers and sample images of one run per arm.

    Args:
      records: what :func:`evaluate_run` returned or :func:`evaluations_of` read.
      out: the report's folder.
      title: its title.
      notes: remarks; those of :func:`bap_jax.runs.report_inputs.notes_of` come after them.
      samples: sample images of each of those runs, see :func:`bap_jax.runs.samples.samples_of`.
      data_dir: where prepared data sets are, if not where the runs found them.
      command: that makes the same report again, which it shows.
      trust: which code the runs' configurations may name; without it there are no sample images of runs that name other code.

    Returns:
      File name → path.
    """
    pictures, missing = samples_of(records, samples, data_dir=data_dir, trust=trust)
    given = ReportInput(
        rows_of(records),
        title,
        settings=settings_table(records),
        versions=versions_table(records),
        checks=checks_of(records),
        notes=[*notes, *notes_of(records), *missing],
        histories=histories_of(records),
        layers=layers_of(records),
        samples=pictures,
        stages=stages_of(records),
        distances=distances_of(records),
        compactions=compactions_of(records),
        command=command,
        differs=differing_settings(records),
        folders=folders_of(records, Path(out)),
    )
    return write_report(given, out)
