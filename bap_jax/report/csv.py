"""results.csv: rows to a file and back, with their types."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bap_jax.atomic import write_atomic
from bap_jax.errors import SettingError
from bap_jax.report.rows import COLUMNS, TEXT_COLUMNS, Row, in_order

INTEGER_COLUMNS = ("seed", "num_examples")
FLOAT_COLUMNS = ("sparsity", "epsilon", "accuracy")


def write_csv(rows: Sequence[Row], path: str | Path) -> Path:
    """Write rows as CSV, atomically.

    The columns of :data:`bap_jax.report.rows.COLUMNS` come first, others after them in order of first appearance. ``None``
    and NaN, and infinity in a further column, become an empty field. Floats are written in full, so that reading gives the same
    bits.

    Args:
      rows: long-form rows; they need not all have the same further columns.
      path: where to.

    Returns:
      ``path``.
    """
    names = in_order([*COLUMNS, *(name for row in rows for name in row)])
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_to_text(name, row.get(name)) for name in names] for row in rows)
    return write_atomic(path, buffer.getvalue())


def _to_text(name: str, value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value  # numpy and jax scalars
    if value is None or value != value or (isinstance(value, float) and math.isinf(value) and name not in COLUMNS):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def read_csv(path: str | Path) -> list[dict[str, Any]]:
    """Read rows that :func:`write_csv` wrote, or that somebody else wrote with the same columns.

    The known columns have their own types: text, int or float. A further column is all int, all float, all bool or all text,
    whichever fits every field in it. An empty field is ``None`` (an empty text in a known text column).

    Args:
      path: the file.

    Returns:
      One dict a row.

    Raises:
      SettingError: a known column is missing, a row is too long or too short, or a number does not read as one.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = list(csv.reader(file))
    names = lines[0] if lines else []
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise SettingError(str(path), names, "the columns " + ", ".join(missing) + " as well")
    records = [line for line in lines[1:] if line]
    for number, line in enumerate(records, start=2):
        if len(line) != len(names):
            raise SettingError(f"{path}, record {number}", line, f"{len(names)} fields")
    columns = {name: _restore(name, [line[i] for line in records], path) for i, name in enumerate(names)}
    return [{name: columns[name][i] for name in names} for i in range(len(records))]


def _restore(name: str, fields: list[str], path: str | Path) -> list[Any]:
    if name in TEXT_COLUMNS:
        return list(fields)
    if name in INTEGER_COLUMNS or name in FLOAT_COLUMNS:
        kind = int if name in INTEGER_COLUMNS else float
        try:
            return [kind(field) if field else None for field in fields]
        except ValueError as error:
            raise SettingError(f"{path}, column {name}", str(error), "whole numbers" if kind is int else "numbers") from None
    for parse in (int, float, _to_bool):
        try:
            return [parse(field) if field else None for field in fields]
        except ValueError:
            continue
    return [field or None for field in fields]


def _to_bool(field: str) -> bool:
    if field not in ("True", "False"):
        raise ValueError(field)
    return field == "True"
