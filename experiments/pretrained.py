"""Pruning a network that was trained densely and robustly, beside pruning from random weights, on digits.

Command: ``python -m experiments.pretrained --out runs/pretrained``; CPU, no data to prepare.

All training is blind. For every seed a dense network is trained, and pruned to 90 % from there (``--init-from``). Beside it one
is pruned from random weights in as many steps as that pruning took, and one in as many as training and pruning took together.

What it showed (three seeds, 600 steps, global, PGD-20 in linf): accuracy at ε = 0, 0.1, 0.2 is 97.3, 83.7, 49.8 % dense;
96.7, 83.6, 52.5 % pruned from there; from random weights 94.6, 77.9, 41.2 %, and in twice the steps 96.7, 83.9, 51.7 %. A network
that is there already saves its training, and is no better than as many steps from random weights.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tyro

from bap_jax.data import Splits
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.loop import load_data, train
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.demo import PLAN
from bap_jax.sweeps.demo import SWEEP as DEMO

EPSILON = "0,0.1,0.2"
SPARSITY = 0.9


def runs_of(base: Settings, num_steps: int, out: Path) -> dict[str, Settings]:
    """The four runs of a seed, by name, the dense one first."""
    pruned = dataclasses.replace(base, pruner="magnitude", final_sparsity=SPARSITY, steps=num_steps)
    return {
        "dense": dataclasses.replace(pruned, pruner="dense"),
        "pruned from dense": dataclasses.replace(pruned, init_from=str(out / "dense")),
        "pruned from random weights": pruned,
        "pruned from random weights, twice the steps": dataclasses.replace(pruned, steps=2 * num_steps),
    }


def accuracies(run: Path, splits: Splits) -> list[float]:
    """Test accuracy in per cent at every radius."""
    plan = dataclasses.replace(PLAN, epsilon=EPSILON, controls=False)
    return [100 * row["accuracy"] for row in evaluate_run(run, plan, dataset=splits.test)["rows"] if row["attack"]]


def main(out: Path, seeds: int = 3, steps: int = 600) -> None:
    """Trains what is not there yet, and prints mean and standard deviation over seeds."""
    found: dict[str, list[list[float]]] = {}
    splits = load_data(DEMO.base)
    for seed in range(seeds):
        folder = out / f"seed{seed}"
        for name, settings in runs_of(dataclasses.replace(DEMO.base, seed=seed), steps, folder).items():
            run = folder / name.replace(" ", "-").replace(",", "")
            train(settings, run, splits=splits, resume=True)
            found.setdefault(name, []).append(accuracies(run, splits))
    print(f"| {seeds} seeds, {steps} steps | " + " | ".join(f"ε = {radius}" for radius in EPSILON.split(",")) + " |")
    print("| --- |" + " --- |" * len(EPSILON.split(",")))
    for name, values in found.items():
        mean, spread = np.mean(values, 0), np.std(values, 0, ddof=1) if seeds > 1 else np.zeros(len(values[0]))
        print(f"| {name} | " + " | ".join(f"{a:.1f} ± {b:.1f}" for a, b in zip(mean, spread, strict=True)) + " |")


if __name__ == "__main__":
    tyro.cli(main)
