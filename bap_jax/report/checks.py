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


def trust_sentences(checks: Sequence[Mapping[str, Any]], ranked: Sequence[str]) -> list[str]:
    """Which arms the failed checks speak of, and whether the ranking stands without them.

    A check that fails says that an accuracy may be too high. An arm that is not the best one would only fall, so the best one
    stays where it is; if it is the best one itself, the ranking falls.

    Args:
      checks: as a report is given them, with the ``arms`` of those that failed.
      ranked: the arms with a score, the best first; none where several comparisons have rankings of their own.

    Example:
      >>> failed = {"name": "input gradients", "status": "failed", "arms": ["clean"]}
      >>> said = trust_sentences([failed], ["blind", "uniform 0.1", "clean"])[0].partition(": ")
      >>> said[0], said[2]  # doctest: +NORMALIZE_WHITESPACE
      ('A check failed for “clean” alone (input gradients)', 'its accuracy under attack may be too high. The ranking of the
      other 2 arms stands without it, “blind” first.')
    """
    failed = [check for check in checks if check["status"] == "failed"]
    known = bool(failed) and all(check.get("arms") for check in failed)
    touched = [arm for arm in ranked if any(arm in check["arms"] for check in failed)] if known else []
    whole = checks_sentence(as_checks(checks))
    if not touched or len(touched) == len(ranked) or any(arm not in ranked for check in failed for arm in check["arms"]):
        return [whole] if whole else []
    names = " and ".join(f"“{arm}”" for arm in touched)
    which = ", ".join(str(check["name"]) for check in failed)
    its, them = ("its accuracy", "it") if len(touched) == 1 else ("their accuracies", "them")
    first = f"{'A check' if len(failed) == 1 else counted(len(failed), 'check')} failed for {names} alone ({which}): "
    first += f"{its} under attack may be too high. "
    others = [arm for arm in ranked if arm not in touched]
    if ranked[0] in touched:
        return [f"{first}The ranking does not stand: the best score is among them. Without {them} “{others[0]}” is first."]
    rest = "The score of the other arm stands" if len(others) == 1 else f"The ranking of the other {len(others)} arms stands"
    return [f"{first}{rest} without {them}, “{others[0]}” first."]
