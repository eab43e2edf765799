"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bap_jax.report.rows import Row

if TYPE_CHECKING:  # matplotlib takes its time: only who draws waits for it
    from bap_jax.report.distances import Distances
    from bap_jax.report.figures import Samples

History = Sequence[Mapping[str, Any]]  # of one run: rows over training


class ReportInput(NamedTuple):
    """The rows of a report, and all else that it may show. Runs in ``histories`` and ``layers`` that are named like an arm have
    that arm's colour.

    Args:
      rows: long-form rows, see :mod:`bap_jax.report.rows`.
      title: the report's title.
      settings: what was set, nested if one likes.
      versions: package → version, and whatever else says where the numbers come from.
      checks: dicts with name, status (passed, warned, failed), value and advice, and the ``arms`` that a check which did not
        pass speaks of, if that is known.
      notes: warnings and remarks in words.
      histories: run → rows over training, see :func:`bap_jax.report.figures.training_figure`.
      layers: run → layer → sparsity.
      samples: adversarial images to show.
      stages: robust accuracy after each attack of a cascade, see :func:`bap_jax.report.cascades.stage_tables`.
      distances: what minimal-norm attacks found.
      compactions: what `bap compact` wrote of its runs, see :func:`bap_jax.report.compactions.compactions_table`.
      num_resamples: draws of the bootstrap.
      command: that repeats it.
      differs: those of the settings in which the runs differ, name → values.
      folders: arm → where its runs lie, as a link from the report's folder.
    """

    rows: Sequence[Row]
    title: str
    settings: Mapping[str, Any] | None = None
    versions: Mapping[str, Any] | None = None
    checks: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    histories: Mapping[str, History] | None = None
    layers: Mapping[str, Mapping[str, float]] | None = None
    samples: Sequence[Samples] = ()
    stages: Sequence[Mapping[str, Any]] = ()
    distances: Sequence[Distances] = ()
    compactions: Sequence[Mapping[str, Any]] = ()
    num_resamples: int = 1000
    command: str = ""
    differs: Mapping[str, str] | None = None
    folders: Mapping[str, str] | None = None
