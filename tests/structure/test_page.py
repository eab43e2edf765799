"""The examples of docs/structure.md run, and what they leave gives the same logits."""

import re
from pathlib import Path

import jax
import numpy as np

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def test_the_examples_run_and_the_compact_network_gives_the_same_logits(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "structure.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    assert "conv2/kernel: 64\n" in capsys.readouterr().out
    network, small, report = names["network"], names["small"], names["report"]
    sliced = names["bap"].structure.sliced_apply(names["model"], names["params"], names["model_state"], report.cut)
    images = np.random.default_rng(0).uniform(size=(2, 28, 28, 1)).astype(np.float32)

    @jax.jit
    def logits(network, small):
        calls = [(names["model"].apply, network), (names["compact_model"].apply, small), (sliced, small)]
        return [apply(each.params, each.model_state, images, train=False)[0].logits for apply, each in calls]

    whole, *others = logits(network, small)
    for found in others:
        np.testing.assert_allclose(found, whole, atol=1e-4 * np.abs(whole).max())
