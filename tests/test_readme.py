"""The README's examples run, in order, as they stand."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).resolve().parent.parent / "README.md"


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_example_comes_early():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 35


def test_it_is_short_and_fits_a_narrow_window():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 120
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", "\n".join(lines))
    assert len(linked) > 20 and [link for link in linked if not (README.parent / link).exists()] == []


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    first, pieces, evaluation, restore = python_blocks()
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(first, names)
    shape, sparsity, robust = re.fullmatch(r"(.*\)) (.*)\n.*array\(\[(.*)\]\)}\n", capsys.readouterr().out).groups()
    assert shape == "(8, 10)" and abs(float(sparsity) - 0.9) < 1e-3 and 0.5 < float(robust) < 0.95

    exec(pieces, names)
    sparsity, accuracy, epsilon = (float(x) for x in capsys.readouterr().out.split())
    assert abs(sparsity - 0.9) < 1e-3 and accuracy > 0.7 and 0.05 < epsilon < 0.6

    exec(evaluation, names)
    printed = capsys.readouterr().out
    after = [float(array.item()) for array in names["result"].stages["autoattack-linf"].values()]
    assert (
        list(names["result"].stages["autoattack-linf"]) == ["apgd-ce", "apgd-t", "fab-t", "square"]
        and "autoattack linf" in printed
    )
    assert after == sorted(after, reverse=True) and 0 < after[-1] < names["result"].clean_accuracy

    from bap_jax.cli.main import main

    main_status = None
    try:
        main(["train", "--steps", "20", "--batch-size", "64", "--out", "runs/x"])
    except SystemExit as stopped:
        main_status = stopped.code
    assert main_status == 0
    exec(restore, names)
    assert names["logits"].shape == (8, 10) and np.all(np.isfinite(names["logits"]))
    kernels = [(w, m) for w, m in zip(*map(_leaves, names["network"][:2]), strict=True) if m.ndim]
    assert kernels and all(np.all(w[~m] == 0) for w, m in kernels)


def _leaves(tree):
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
