"""Published numbers made up for a test."""

import pytest

from experiments import published as numbers


@pytest.fixture
def published(monkeypatch):
    """Publishes rows under any name: of two uniform arms, a blind and a clean one, two processes, two seeds, ε 0 and .2."""
    rows = []

    def add(arm, levels, split="test", gap=0.0, attack="pgd-20", norm="linf", **more):
        for seed, level in enumerate(levels):
            for process, shift in (("fast", -gap), ("slow", gap)):
                common = {
                    "data": "d",
                    "model": "m",
                    "arm": arm,
                    "process": process,
                    "sparsity": 0.9,
                    "seed": seed,
                    "split": split,
                }
                trained = {"budget": "uniform", "train_epsilon": float(arm.split()[1])} if arm.startswith("uniform") else {}
                trained |= {"budget": "cutoff-scale"} if arm.startswith("blind") else {}
                common |= {"num_examples": 10, "train_attack": "pgd", "loss": "mix", **trained, **more}
                clean = {"attack": "clean", "norm": "", "epsilon": 0.0, "accuracy": level + 0.2}
                rows.append(common | clean)
                rows.append(common | {"attack": attack, "norm": norm, "epsilon": 0.2, "accuracy": level - 0.2 + shift})

    monkeypatch.setattr(numbers, "read_csv", lambda path: rows)
    add.rows = rows
    return add
