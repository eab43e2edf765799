"""The scripts in examples/ run, each of at most 30 lines of code, and prune to what they say."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_an_example_is_short_and_tried_here():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {"linen.py", "nnx.py", "own_loop.py"}
    for name in scripts:
        code = [line for line in (EXAMPLES / name).read_text().splitlines() if line.strip()]
        assert len(code) <= 30, name


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_a_network_of_ones_own_is_pruned_and_attacked(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    net, result = example["main"](steps=60, limit=16)
    masks = [np.asarray(mask) for mask in jax.tree.leaves(net.masks) if mask.ndim]
    assert sum(mask.sum() for mask in masks) == pytest.approx(0.1 * sum(mask.size for mask in masks), abs=2)
    assert result.clean_accuracy > 0.3 and len(result.stages["autoattack-linf"]) == 4
    assert not [check for check in result.checks if check.status == "failed"]


def test_a_loop_of_ones_own_prunes():
    sparsity, loss = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"](steps=30)
    assert float(sparsity) == pytest.approx(0.9, abs=1e-3) and float(loss) < 2.0
