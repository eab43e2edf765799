"""What a report is made of: long-form rows, one measured accuracy each.

A row is a dict with the columns of :data:`COLUMNS`, and as many others as one likes (``compression_ratio``, ``nonzero`` …).
Accuracies are fractions of 1. The accuracy on clean images is the row with ``attack="clean"`` and ``epsilon=0``; it counts as
the point ε = 0 of every attack that has none of its own. ``None`` or NaN as an accuracy means that it was not measured; so does
a row that is not there. ``sparsity`` is the one that was asked for, so that it is equal among arms; what was measured belongs
into a column of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bap_jax.errors import SettingError

Row = Mapping[str, Any]
CLEAN = "clean"  # the attack of a row that was not attacked

TEXT_COLUMNS = ("data", "model", "arm", "process", "attack", "norm")
COLUMNS = ("data", "model", "arm", "process", "sparsity", "seed", "attack", "norm", "epsilon", "accuracy", "num_examples")
NORM_NAMES = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0", "rms": "RMS"}


class Comparison(NamedTuple):
    """What is held fixed when arms are compared: data set, model, attack and norm."""

    data: str
    model: str
    attack: str
    norm: str

    @property
    def is_cut(self) -> bool:
        """Whether accuracies are those on points cut from one perturbation, the paper's own protocol, not robust accuracies."""
        return re.fullmatch(r"[a-z]+-truncated(-\d+)?", self.attack) is not None

    @property
    def attack_label(self) -> str:
        """The attack with its norm, e.g. ``pgd-20 (L∞)``; ``deepfool-truncated (RMS, cut points)`` where :attr:`is_cut`."""
        if self.attack == CLEAN:
            return "no attack"
        details = [part for part in (NORM_NAMES.get(self.norm, self.norm), "cut points" if self.is_cut else "") if part]
        return f"{self.attack} ({', '.join(details)})" if details else self.attack

    @property
    def label(self) -> str:
        """Everything in words, e.g. ``digits, mlp, pgd-20 (L∞)``."""
        return f"{self.data}, {self.model}, {self.attack_label}"


def sparsity_of(row: Row) -> float:
    """The sparsity that a row is grouped by: rounded to 4 decimals."""
    return round(float(row["sparsity"]), 4)


def epsilon_of(row: Row) -> float:
    """The budget that a row is grouped by: rounded to 6 decimals."""
    return round(float(row["epsilon"]), 6)


def accuracy_of(row: Row) -> float:
    """The accuracy as a float, NaN if it was not measured."""
    value = row["accuracy"]
    return math.nan if value is None else float(value)


def key_of(row: Row) -> tuple[Any, ...]:
    """What makes a row the only one of its kind."""
    network = (str(row["data"]), str(row["model"]), str(row["arm"]), str(row["process"]))
    return (*network, sparsity_of(row), int(row["seed"]), str(row["attack"]), str(row["norm"] or ""), epsilon_of(row))


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows that no report can be made of.

    Args:
      rows: long-form rows.

    Raises:
      SettingError: no rows; a column is missing; a value is out of range; two rows measure the same thing and disagree.

    Example:
      >>> check_rows([])
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: rows = []: expected at least one row
    """
    if not rows:
        raise SettingError("rows", [], "at least one row")
    seen: dict[tuple[Any, ...], float] = {}
    for number, row in enumerate(rows):
        _check_row(number, row)
        accuracy, key = accuracy_of(row), key_of(row)
        other = seen.setdefault(key, accuracy)
        if other != accuracy and not (math.isnan(other) and math.isnan(accuracy)):
            raise SettingError(f"rows[{number}].accuracy", accuracy, f"{other}, which an earlier row gives for {key}")


def _check_row(number: int, row: Row) -> None:
    missing = [name for name in COLUMNS if name not in row]
    if missing:
        raise SettingError(f"rows[{number}]", sorted(row), "the columns " + ", ".join(missing) + " as well")
    for name in ("sparsity", "epsilon", "seed"):
        if row[name] is None:
            raise SettingError(f"rows[{number}].{name}", None, "a number")
    if not 0 <= float(row["sparsity"]) <= 1:
        raise SettingError(f"rows[{number}].sparsity", row["sparsity"], "a number in [0, 1]")
    if not float(row["epsilon"]) >= 0:
        raise SettingError(f"rows[{number}].epsilon", row["epsilon"], "a number ≥ 0")
    accuracy = accuracy_of(row)
    if not (math.isnan(accuracy) or 0 <= accuracy <= 1):
        raise SettingError(f"rows[{number}].accuracy", row["accuracy"], "a fraction in [0, 1], or none where it is missing")


def in_order(values: Iterable[Any]) -> list[Any]:
    """The distinct values, in order of first appearance.

    Example:
      >>> in_order("bab")
      ['b', 'a']
    """
    return list(dict.fromkeys(values))


def arms_of(rows: Sequence[Row]) -> list[str]:
    """The arms, in order of first appearance."""
    return in_order(str(row["arm"]) for row in rows)


def comparisons_of(rows: Sequence[Row]) -> list[Comparison]:
    """The comparisons that rows hold, in order of first appearance, those of attacks before those of cut points.

    Clean rows make a comparison of their own only for a data set and model that were never attacked.

    Example:
      >>> row = {"data": "digits", "model": "mlp", "attack": "clean", "norm": ""}
      >>> [comparison.label for comparison in comparisons_of([row, row | {"attack": "pgd-20", "norm": "linf"}])]
      ['digits, mlp, pgd-20 (L∞)']
    """
    comparisons = in_order(
        Comparison(str(row["data"]), str(row["model"]), str(row["attack"]), str(row["norm"] or "")) for row in rows
    )
    attacked = {(comparison.data, comparison.model) for comparison in comparisons if comparison.attack != CLEAN}
    clean = in_order(comparison._replace(norm="") for comparison in comparisons if comparison.attack == CLEAN)
    alone = [comparison for comparison in clean if (comparison.data, comparison.model) not in attacked]
    return (
        sorted((comparison for comparison in comparisons if comparison.attack != CLEAN), key=lambda comparison: comparison.is_cut)
        + alone
    )


def format_epsilon(epsilon: float) -> str:
    """A budget as people write it: ``0.1``, or ``8/255`` where that is what it is.

    Example:
      >>> format_epsilon(0.1), format_epsilon(8 / 255), format_epsilon(0.0)
      ('0.1', '8/255', '0')
    """
    steps = epsilon * 255
    if 0 < epsilon < 1 and abs(steps - round(steps)) < 1e-3 and abs(epsilon - round(epsilon, 3)) > 1e-6:
        return f"{round(steps)}/255"
    return f"{epsilon:.4g}"


def format_sparsity(sparsity: float) -> str:
    """A sparsity in per cent: ``90 %``, ``99.5 %``.

    Example:
      >>> format_sparsity(0.995)
      '99.5 %'
    """
    return f"{100 * sparsity:.4g} %"
