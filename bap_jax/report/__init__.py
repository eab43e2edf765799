"""Reports: measures, tables, pictures, and the pages and files that hold them.

Importing this package does not load matplotlib; :mod:`bap_jax.report.figures` and writing a report do.
"""

from bap_jax.renamed import renamed
from bap_jax.report.csv import read_csv, write_csv
from bap_jax.report.distances import Distances
from bap_jax.report.inputs import ReportInput
from bap_jax.report.leaderboard import Entry, entries_of, published, rank, write_leaderboard
from bap_jax.report.measures import (
    ArmMeasures,
    Grid,
    Interval,
    aer_difference,
    aer_score,
    bootstrap,
    budget_sensitivity,
    cell_interval,
    cell_means,
    common_cells,
    make_grid,
    measure,
    security_area,
    stability,
    uniform_arms,
)
from bap_jax.report.rows import COLUMNS, Comparison, check_rows, comparisons_of
from bap_jax.report.table import Cell, Table, to_html, to_markdown, to_rich
from bap_jax.report.terminal import print_report
from bap_jax.report.write import write_report

__all__ = [
    "COLUMNS",
    "ArmMeasures",
    "Cell",
    "Comparison",
    "Distances",
    "Entry",
    "Grid",
    "Interval",
    "ReportInput",
    "Table",
    "aer_difference",
    "aer_score",
    "bootstrap",
    "budget_sensitivity",
    "cell_interval",
    "cell_means",
    "check_rows",
    "common_cells",
    "comparisons_of",
    "entries_of",
    "make_grid",
    "measure",
    "print_report",
    "published",
    "rank",
    "read_csv",
    "security_area",
    "stability",
    "to_html",
    "to_markdown",
    "to_rich",
    "uniform_arms",
    "write_csv",
    "write_leaderboard",
    "write_report",
]

__getattr__ = renamed(__name__, Scene="Comparison", scenes_of="comparisons_of")
