"""What compaction saved, run by run: nominal beside real compression, work, memory and measured latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bap_jax.report.table import MISSING, Cell, Table

_NOTE = (
    "After over before, unless it says otherwise. Nominal: prunable over kept weights, as the masks count; real: all parameters "
    "over those of the smaller dense network; zeros: of what is left. Memory: a batch with its weights, as XLA lays it out. "
    "Latency: medians of interleaved forward passes, ratios of single rounds."
)


def compactions_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each run that `bap compact` left.

    Args:
      records: what it wrote, each with its ``run``: ``before``, ``after``, ``nominal``, ``real``, ``zeros``.

    Example:
      >>> side = {"num_parameters": 8, "flops_dense": 4, "bytes_dense": 2, "memory": {"1": 5}, "seconds": {"1": 2e-3}}
      >>> record = {"run": "x", "before": side, "after": side | {"num_parameters": 2}, "nominal": 4.0, "real": 4.0, "zeros": 0}
      >>> [cell.text for cell in compactions_table([record]).rows[0]]
      ['x', '8', '2', '4.00', '4.00', '0', '1.000', '1.000', '1.000', '2 → 2', '1.000']
    """
    batches = list(dict.fromkeys(batch for record in records for batch in record["after"]["memory"]))
    columns = ["network", "parameters before", "after", "nominal ×", "real ×", "zeros", "FLOPs", "bytes"]
    columns += [f"memory, batch {batch}" for batch in batches]
    for batch in batches:
        columns += [f"latency, batch {batch}, ms", "ratio"]
    return Table("Compaction", tuple(columns), tuple(_line(record, batches) for record in records), _NOTE)


def _line(record: Mapping[str, Any], batches: Sequence[str]) -> tuple[Cell, ...]:
    before, after = record["before"], record["after"]
    sizes = [Cell(f"{side['num_parameters']:,}", side["num_parameters"]) for side in (before, after)]
    factors = [_number(record[name], ".2f") for name in ("nominal", "real")]
    cells = [Cell(str(record["run"])), *sizes, *factors, Cell(f"{record['zeros']:,}", record["zeros"])]
    cells += [_share(before[name], after[name]) for name in ("flops_dense", "bytes_dense")]
    cells += [_share(*(side["memory"].get(batch) for side in (before, after))) for batch in batches]
    for batch in batches:
        seconds = [side["seconds"].get(batch) for side in (before, after)]
        timed = None not in seconds
        cells.append(Cell(" → ".join(f"{1e3 * one:.3g}" for one in seconds) if timed else MISSING))
        ratio = after.get("ratio", {}).get(batch)
        cells.append(_share(*seconds) if ratio is None else _number(ratio["median"], ".3f"))
    return tuple(cells)


def _share(before: float | None, after: float | None) -> Cell:
    return _number(after / before if before and after is not None else None, ".3f")


def _number(value: float | None, form: str) -> Cell:
    return Cell(MISSING) if value is None else Cell(format(value, form), value)
