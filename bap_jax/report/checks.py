"""Checks as a report shows them: a table, and a sentence on whether to believe the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bap_jax.errors import SettingError
from bap_jax.report.sentences import counted
from bap_jax.report.table import TONES, Cell, Table
from bap_jax.types import Check


def as_checks(checks: Sequence[Mapping[str, Any]] | None) -> tuple[Check, ...]:
    """Checks from dicts with ``name``, ``status`` and, if one likes, ``value`` and ``advice``.

    Raises:
      SettingError: a status other than passed, warned and failed.
    """
    found: list[Check] = []
    for check in checks or ():
        name, status, value, advice = (str("" if check.get(k) is None else check[k]) for k in Check._fields)
        if status not in TONES:
            raise SettingError(f"checks[{name!r}].status", status, "passed, warned or failed")
        found.append(Check(name, status, value, advice))  # type: ignore[arg-type]
    return tuple(found)


def checks_table(checks: Sequence[Check], title: str = "Checks") -> Table:
    """Checks with their status as a word (and a colour)."""
    order = {"failed": 0, "warned": 1, "passed": 2}
    rows = sorted(checks, key=lambda check: order[check.status])
    cells = tuple(
        (Cell(c.name), Cell(c.status, order[c.status], tone=c.status, strong=c.status == "failed"), Cell(c.value), Cell(c.advice))
        for c in rows
    )
    return Table(title, ("check", "status", "value", "advice"), cells, num_labels=4)


def checks_sentence(checks: Sequence[Check]) -> str:
    """How the checks went, or "" if there were none."""
    if not checks:
        return ""
    count = {status: sum(check.status == status for check in checks) for status in TONES}
    failed = ", ".join(check.name for check in checks if check.status == "failed")
    if failed:
        return f"Do not rely on these numbers yet: {counted(count['failed'], 'check')} failed ({failed})."
    warned = ", ".join(check.name for check in checks if check.status == "warned")
    if warned:
        return f"Of {counted(len(checks), 'check')} none failed; {count['warned']} warned ({warned})."
    return f"All {counted(len(checks), 'check')} passed." if len(checks) > 1 else "The check passed."
