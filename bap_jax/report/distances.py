"""What minimal-norm attacks found: distances, one network's or several networks' pooled, as a curve and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bap_jax.report.rows import NORM_NAMES, format_sparsity
from bap_jax.report.table import MISSING, Cell, Table

POINTS = 200


class Distances(NamedTuple):
    """The nearest adversarial points that one minimal-norm attack found, of one arm at one sparsity, all seeds and processes."""

    data: str
    model: str
    arm: str
    sparsity: float
    attack: str  # with its settings, without the norm
    norm: str
    values: np.ndarray  # [N] distances in the norm; 0 = wrong without an attack, inf = attacked and nothing found
    networks: int = 1  # how many networks the values are of
    optimality: float = math.nan  # global: the mean of the local one over these networks
    passes: float = math.nan  # forward and backward ones per image together

    @property
    def norm_label(self) -> str:
        return NORM_NAMES.get(self.norm, self.norm)

    @property
    def label(self) -> str:
        """Data, model and attack in words."""
        return f"{self.data}, {self.model}, {self.attack} ({self.norm_label})"

    @property
    def right(self) -> np.ndarray:
        """The distances of the examples that were right without an attack."""
        return self.values[self.values > 0]

    @property
    def median(self) -> float:
        """The median over the examples that were right, nothing found counted as infinite; NaN if none was right."""
        return quantile(self.right, 0.5)


def quantile(values: np.ndarray, share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed; NaN if there are none.

    Example:
      >>> quantile(np.array([0.1, 0.2, 0.3, np.inf]), 0.5), quantile(np.array([]), 0.5)
      (0.2, nan)
    """
    return float(np.quantile(values, share, method="inverted_cdf")) if values.size else math.nan


def survival(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radii from 0 upwards, and the share of all examples whose nearest adversarial point lies farther than each.

    Args:
      values: [N] distances, 0 = wrong already, inf = nothing found.

    Returns:
      Radii and shares, each with at most 200 entries: every finite distance if there are no more, else evenly chosen ones.

    Example:
      >>> radii, shares = survival(np.array([0.0, 0.1, 0.2, np.inf]))
      >>> radii.tolist(), shares.tolist()
      ([0.0, 0.1, 0.2], [0.75, 0.5, 0.25])
    """
    radii = np.unique(np.concatenate([[0.0], values[np.isfinite(values)]]))
    if len(radii) > POINTS:
        radii = radii[np.linspace(0, len(radii) - 1, POINTS).round().astype(int)]
    farther = len(values) - np.searchsorted(np.sort(values), radii, side="right")
    return radii, farther / max(1, len(values))


def distances_table(found: Sequence[Distances]) -> Table:
    """The quartiles, and how many examples had no adversarial point; a quartile among those is "–"."""
    measured = [name for name in ("optimality", "passes") if any(math.isfinite(getattr(one, name)) for one in found)]
    columns = ("attack", "data", "model", "arm", "sparsity", "25 %", "median", "75 %", "not found", "right", "wrong", *measured)
    lines = []
    for one in found:
        labels = [Cell(text) for text in (f"{one.attack} ({one.norm_label})", one.data, one.model, one.arm)]
        counts = (int(np.isinf(one.right).sum()), one.right.size, int((one.values == 0).sum()))
        quartiles = [_quartile(quantile(one.right, share)) for share in (0.25, 0.5, 0.75)]
        lines.append(
            (
                *labels,
                Cell(format_sparsity(one.sparsity), one.sparsity),
                *quartiles,
                *(Cell(f"{n:,}", n) for n in counts),
                *(_quartile(getattr(one, name)) for name in measured),
            )
        )
    networks = sorted({one.networks for one in found})
    over = "one network" if networks == [1] else f"{' or '.join(map(str, networks))} networks (processes and seeds) together"
    note = (
        f"Distances in the named norm over the examples of {over} that are right without an attack. “Not found” counts those "
        f"without an adversarial point: they are farther than any distance, and a quartile among them is “{MISSING}”."
    )
    if measured:
        note += (
            " Optimality, as AttackBench has it: 1 where no attack of the same evaluation came nearer to any image, 0 for one "
            "that finds nothing; of several networks the mean. Passes: forward and backward ones per image."
        )
    return Table("Distances to the nearest adversarial point found", columns, tuple(lines), note, num_labels=5)


def _quartile(value: float) -> Cell:
    return Cell(f"{value:.4g}", value) if math.isfinite(value) else Cell(MISSING)
