"""The cross-check's own parts: what it compares exists, starts are Auto-PGD's, workers answer, tables replace themselves."""

import importlib
import inspect
import sys

import numpy as np
import pytest

from tools.crosscheck.catalogue import COMPARED_NORMS, by_name, cases, distances, noise, start
from tools.crosscheck.compare import merged, read_csv, write_csv
from tools.crosscheck.protocol import ROOT, Worker, WorkerError
from tools.crosscheck.tables import budget_table, minimal_table, standing_table, write_between

ours = importlib.import_module("tools.crosscheck.ours")
IMAGES = np.random.RandomState(0).rand(3, 4, 4, 2).astype(np.float32)


def test_every_case_names_an_attack_of_this_package():
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names) and all(case.norm in COMPARED_NORMS and case.norm in case.name for case in cases())
    for case in cases():
        if case.ours == "autoattack":
            continue
        attack = getattr(importlib.import_module(f"bap_jax.attacks.{ours._MODULES.get(case.ours, case.ours)}"), case.ours)
        known = inspect.signature(attack).parameters
        assert set(case.settings) - {"relative_step"} <= set(known), case.name
        assert case.start != "given" or "start" in known, case.name
        assert by_name(case.name) == case


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_start_lies_at_the_radius_before_the_box(norm):
    wide = 0.5 + 0 * IMAGES
    reached = distances(wide, start(wide, norm, 0.2, 1), norm)
    np.testing.assert_allclose(reached, 0.2, rtol=1e-5)
    assert np.abs(noise(IMAGES, norm, 0) - noise(IMAGES, norm, 1)).max() > 0.1
    far = start(IMAGES, norm, 5.0, 0)
    assert far.min() == 0 and far.max() == 1


def test_distances_of_every_norm():
    moved = IMAGES.copy()
    moved[1, 0, 0] += (3.0, -4.0)
    expected = {"linf": 4, "l2": 5, "l1": 7, "l0": 2}
    for norm, value in expected.items():
        np.testing.assert_allclose(distances(IMAGES, moved, norm), [0, value, 0], rtol=1e-6)


def test_a_worker_answers_tells_errors_and_keeps_its_output_clean(tmp_path, monkeypatch):
    package = tmp_path / "echo_worker.py"
    package.write_text(
        "from tools.crosscheck.protocol import serve\n"
        "def echo(text):\n    print('noise')\n    return {'text': text}\n"
        "def fail():\n    raise ValueError('no')\n"
        "serve({'echo': echo, 'fail': fail})\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    worker = Worker(sys.executable, "echo_worker", [0], tmp_path / "log")
    assert worker.ask("echo", text="π") == {"text": "π"}
    with pytest.raises(WorkerError, match="ValueError: no"):
        worker.ask("fail")
    assert worker.ask("echo", text="again") == {"text": "again"}
    worker.close()
    assert "noise" in (tmp_path / "log").read_text()
    dead = Worker(sys.executable, "no_such_module_at_all", [0], tmp_path / "log")
    with pytest.raises(WorkerError, match="died"):
        dead.ask("echo", text="")
    dead.close()


def test_tables_replace_themselves_and_leave_the_rest_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nwords\n")
    write_between(page, "a", "one")
    write_between(page, "b", "two")
    write_between(page, "a", "three \\1")
    text = page.read_text()
    assert text.startswith("# Title\n\nwords\n") and "one" not in text
    assert text.index("three \\1") < text.index("two") and text.count("begin a") == 1


def test_tables_hold_what_was_measured():
    about = {"name": "n", "model": "m", "data": "d", "step": 1, "examples": 10, "correct": 9, "difference": 1e-6}
    common = {"reference": "adv-lib", "start": "random", "seeds": 2, "agree": 0.95, "only_here": 1, "only_there": 0}
    common |= {"verdicts_differ": 0, "examples": 9}
    budget = common | {"attack": "x", "epsilon": 0.1, "queries_here": [1.0, 2.0, 3.0], "queries_there": [], "agree_there": 0.9}
    for side in ("here", "there"):
        budget |= {f"robust_{side}": 0.5, f"lowest_{side}": 0.4, f"highest_{side}": 0.6}
    assert "50.0 (40.0–60.0)" in budget_table([budget], about) and "1 / 2 / 3" in budget_table([budget], about)
    minimal = common | {"attack": "y", "found_here": 1.0, "found_there": 1.0, "median_here": 2.0, "median_there": 2.5}
    minimal |= {"ratio": 0.8, "ratio_p10": 0.7, "ratio_p90": 0.9, "nearer_here": 1.0, "nearer_there": 0.0}
    assert "0.800 (0.700–0.900)" in minimal_table([minimal]) and minimal_table([budget]) == ""


def test_rows_survive_a_file_and_a_later_run_of_other_attacks(tmp_path):
    old = [{"attack": "a", "agree": 0.5, "queries_here": [1.0, 2.0]}, {"attack": "b", "agree": 0.25}]
    write_csv(tmp_path / "x.csv", old)
    assert read_csv(tmp_path / "x.csv") == old and read_csv(tmp_path / "none.csv") == []
    rows = merged(old, [{"attack": "c", "agree": 1.0}, {"attack": "a", "agree": 0.75}], ["c", "a", "b", "d"])
    assert [(row["attack"], row["agree"]) for row in rows] == [("c", 1.0), ("a", 0.75), ("b", 0.25)]


def test_what_stands_after_each_attack_of_a_cascade():
    stages = [["apgd-ce", 20], ["apgd-t", 18], ["square", 18]]
    row = {"attack": "autoattack-linf-pyautoattack", "examples": 23, "standing_here": stages, "standing_there": stages[:2]}
    lines = standing_table([row, {"attack": "fgsm-linf", "examples": 23}]).splitlines()
    assert len(lines) == 5 and lines[2] == "| autoattack-linf-pyautoattack | apgd-ce | 23 | 20 | 20 |"
    assert lines[4].endswith("| 18 | – |")  # there, nothing was left or it was not run
    assert standing_table([{"attack": "fgsm-linf"}]) == ""
