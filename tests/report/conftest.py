"""Rows that look like a real comparison, made from a formula."""

import math

import pytest

ARMS = {"clean": (0.97, 0.06), "uniform 0.2": (0.95, 0.16), "uniform 0.3": (0.92, 0.19), "blind": (0.955, 0.20)}
EPSILONS = (0.0, 0.1, 0.2, 0.3)


def _make_rows(arms=ARMS, sparsities=(0.8, 0.97), processes=("fast", "slow"), seeds=(0, 1, 2), epsilons=EPSILONS, **more):
    rows = []
    for a, (arm, (top, width)) in enumerate(arms.items()):
        for sparsity in sparsities:
            for p, process in enumerate(processes):
                for seed in seeds:
                    for epsilon in epsilons:
                        accuracy = (top - 0.3 * (sparsity - 0.8)) / (1 + math.exp((epsilon - width) / 0.05))
                        accuracy += 0.004 * math.sin(7 * seed + 3 * p + a + 11 * epsilon) + 0.01 * p
                        clean = epsilon == 0
                        row = {
                            "data": "digits",
                            "model": "mlp",
                            "arm": arm,
                            "process": process,
                            "sparsity": sparsity,
                            "seed": seed,
                        }
                        row["budget"] = {"clean": "none", "blind": "cutoff-scale"}.get(arm, "uniform")
                        row |= {"attack": "clean" if clean else "pgd-20", "norm": "" if clean else "linf", "epsilon": epsilon}
                        rows.append(row | {"accuracy": min(max(accuracy, 0.0), 1.0), "num_examples": 360} | more)
    return rows


@pytest.fixture(scope="session")
def make_rows():
    return _make_rows


@pytest.fixture
def rows():
    return _make_rows()
