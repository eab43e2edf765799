"""What an evaluation tells: while it runs, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bap_jax.evaluation.accuracy import wilson_interval
from bap_jax.types import Check, Norm


class Progress(NamedTuple):
    """How far an evaluation is: told after every attack on every batch."""

    threat: str  # with the stage of a cascade
    epsilon: float  # inf for a minimal-norm attack, which has none
    done: int  # examples that this attack has tried
    total: int  # examples that it will try: those that are still robust
    accuracy: float  # robust accuracy under this threat at this budget, so far: examples not yet tried count as robust
    fraction: float  # of the whole evaluation, in [0, 1], an estimate


class EvaluationResult(NamedTuple):
    """What an evaluation found. N examples in the order of the batches, padding left out; E budgets of a threat, rising.

    ``print(result)`` is a short table, :meth:`to_rows` the same as records, :meth:`plot` draws it.
    """

    num_examples: int
    clean_accuracy: float
    epsilons: Mapping[str, tuple[float, ...]]  # threat -> E budgets, in the threat's norm
    robust_accuracy: Mapping[str, np.ndarray]  # threat -> [E]
    worst_case: Mapping[Norm, np.ndarray]  # norm -> [E], correct under every threat of that norm
    index: np.ndarray  # type: ignore[assignment]  # [N] position in the data set
    label: np.ndarray  # [N]
    prediction: np.ndarray  # [N] on the clean image
    success: Mapping[str, np.ndarray]  # threat -> [E, N] bool: misclassified, be it without an attack
    distance: Mapping[str, np.ndarray]  # minimal threat -> [N]: 0 = wrong already, inf = nothing found; of cut points, uncut
    nearest: Mapping[Norm, np.ndarray]  # norm -> [N] smallest norm of all adversarial points that any attack found
    stages: Mapping[str, Mapping[str, np.ndarray]]  # cascade -> stage -> [E] robust accuracy after it
    broken_by: Mapping[str, np.ndarray]  # cascade -> [E, N] the stage, from 1, that fooled it; 0 = wrong already, -1 = robust
    examples: Mapping[str, np.ndarray]  # threat -> [E or 1, N, ...] the attacked images; {} unless asked for
    checks: tuple[Check, ...]
    repaired: Mapping[str, np.ndarray] = MappingProxyType({})  # cut attack -> [E] share wrong without it, right at its cut point
    norms: Mapping[str, Norm] = MappingProxyType({})  # threat -> the norm of its budgets

    def to_rows(self) -> list[dict[str, Any]]:
        """One record per attack and ε: what a data frame, a CSV file or a report is made of.

        Returns:
          Dicts of ``attack`` (without its norm), ``norm``, ``epsilon``, ``accuracy``, ``low``, ``high`` (the 95 % Wilson interval
          of the choice of examples) and ``num_examples``; first the clean images (``norm`` is empty), then every threat at
          ε > 0, then, where several threats share a norm, the worst of them per example.

        Example:
          >>> from bap_jax.evaluation import evaluate
          >>> result = evaluate(lambda x: x, np.array([[0.9, 0.1], [0.6, 0.5]]), [0, 0], attacks="fgsm", epsilon=0.1)
          >>> [(row["attack"], row["epsilon"], row["accuracy"]) for row in result.to_rows()]
          [('clean', 0.0, 1.0), ('fgsm', 0.1, 0.5)]
        """
        rows = [self._row("clean", "", 0.0, self.clean_accuracy)]
        for name, accuracies in self.robust_accuracy.items():
            for place, (epsilon, accuracy) in enumerate(zip(self.epsilons[name], accuracies, strict=True)):
                repaired = {"repaired": float(self.repaired[name][place])} if name in self.repaired else {}
                if epsilon > 0:
                    rows.append(self._row(self._short(name), self.norms[name], epsilon, float(accuracy)) | repaired)
        for norm, accuracies in self.worst_case.items():
            group = [name for name in self.norms if self.norms[name] == norm and " from " not in name]
            if len(group) > 1:
                for epsilon, accuracy in zip(self.epsilons[group[0]], accuracies, strict=True):
                    if epsilon > 0:
                        label = "worst of " + ", ".join(map(self._short, group))
                        rows.append(self._row(label, norm, epsilon, float(accuracy)))
        return rows

    def _short(self, name: str) -> str:
        return name.replace(f"-{self.norms[name]}", "")

    def _row(self, attack: str, norm: str, epsilon: float, accuracy: float) -> dict[str, Any]:
        low, high = wilson_interval(accuracy, self.num_examples)
        measured = {"attack": attack, "norm": norm, "epsilon": epsilon, "accuracy": accuracy}
        return measured | {"low": low, "high": high, "num_examples": self.num_examples}

    def summary(self) -> str:
        """The table that ``print`` shows: accuracies with their intervals, minimal distances, the checks that did not pass.

        Returns:
          A few lines of text.

        Example:
          >>> from bap_jax.evaluation import evaluate
          >>> images = np.array([[0.9, 0.1], [0.6, 0.5]])
          >>> result = evaluate(lambda x: x, images, [0, 0], attacks="fgsm", epsilon=0.1, controls=False)
          >>> print(result.summary().partition("checks")[0])
          2 examples
          attack     epsilon  accuracy  95 % interval
          clean            0   100.0 %   34.2 – 100.0
          fgsm linf      0.1    50.0 %     9.5 – 90.5
          <BLANKLINE>
        """
        lines = [f"{self.num_examples} example{'' if self.num_examples == 1 else 's'}"]
        cells = [("attack", "epsilon", "accuracy", "95 % interval")]
        for row in self.to_rows():
            interval = f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
            name = f"{row['attack']} {row['norm']}".strip()
            cells.append((name, f"{row['epsilon']:.4g}", f"{100 * row['accuracy']:.1f} %", interval))
        lines += _aligned(cells)
        for name, distances in self.distance.items():
            found = distances[np.isfinite(distances) & (distances > 0)]
            median = f"median {np.median(found):.4g} of {len(found)}" if len(found) else "none"
            lines.append(f"smallest perturbations found by {name}: {median}; not found: {int(np.isinf(distances).sum())}")
        counts = [f"{sum(check.status == status for check in self.checks)} {status}" for status in ("passed", "warned", "failed")]
        lines.append("checks: " + ", ".join(counts))
        lines += [
            f"  {check.status}: {check.name}: {check.value}. {check.advice}" for check in self.checks if check.status != "passed"
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def plot(self) -> Any:
        """Draws security curves, and, of what there is, the shares with a minimal distance beyond ε, and a cascade's stages.

        Returns:
          A matplotlib figure: ``result.plot().savefig("curve.png")``. It needs matplotlib.

        Example:
          >>> from bap_jax.evaluation import evaluate
          >>> result = evaluate(lambda x: x, np.array([[0.9, 0.1], [0.6, 0.5]]), [0, 0], attacks="fgsm", epsilon=[0.1, 0.3])
          >>> [axes.get_title(loc="left") for axes in result.plot().axes]
          ['Security curves, linf']
        """
        from bap_jax.evaluation.plot import evaluation_figure

        return evaluation_figure(self)


def _aligned(cells: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of text in columns: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
