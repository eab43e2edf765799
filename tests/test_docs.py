"""The examples of docs/networks.md and docs/library.md run, and the network of the first is one of the fast convolution."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import bap_jax as bap
from bap_jax.threads import threads_for

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_network_of_ones_own_is_fast(monkeypatch):
    own, devices = re.findall(r"```python\n(.*?)```", (DOCS / "networks.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {"__name__": "example"}
    exec(own, names)
    images = jnp.ones((2, 8, 8, 1))
    params, model_state = names["model"].init(jax.random.key(0), images)

    def logits(images):
        return names["model"].apply(params, model_state, images, train=False)[0].logits

    assert logits(images).shape == (2, 10)
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda _, x: x + jax.grad(lambda x: (names["quick"](x) ** 2).sum())(x), x))
    forms = re.findall(r" convolution\(.*dim_labels=(\w+)->", loop.lower(jnp.ones((2, 3, 8, 8))).compile().as_text())
    assert set(forms) == {"b01f_01io"}
    for name in ("NPROC", "JAX_NUM_CPU_DEVICES"):
        monkeypatch.setenv(name, "1")  # and as it was, afterwards
    exec(devices, names)
    assert int(names["os"].environ["NPROC"]) == threads_for(int(names["os"].environ["JAX_NUM_CPU_DEVICES"]))


def test_runs_of_objects_are_what_the_page_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "library.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    found = names["found"]
    assert found.steps == 100 + len(names["digits"].train) // 128 and found.folder == Path("runs/phases").resolve()
    assert {line["phase"] for line in found.metrics} == {"pretrain", "prune", "finetune"}
    assert float(bap.measured_sparsity(found.network.masks)) == pytest.approx(0.9, abs=1e-3)


def test_the_page_on_trust_names_every_setting_and_flag():
    page = (DOCS / "trust.md").read_text(encoding="utf-8")
    from bap_jax.runs.trust import CODE

    assert all(f"`--{name}`" in page for name in CODE) and "`--trust`" in page
    assert all(word in page for word in ("XDG_STATE_HOME", "PYTHONPATH", "features.json"))


def test_every_fault_on_the_page_is_held_by_a_test_that_is_there():
    page, tests = (DOCS / "faults.md").read_text(encoding="utf-8"), DOCS.parent / "tests"
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 30
    for file, function in named:
        source = (tests / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, (file, function)
    for row in page.splitlines():
        if row.startswith("| ") and "---" not in row and not row.startswith("| fault"):
            assert re.search(r"\w+\.py|the same", row), row
