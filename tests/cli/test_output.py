"""`--json`, `--quiet`, `--version`, words that are nearly right: what a script and a hurried person meet."""

import io
import json

import pytest
from rich.console import Console

from bap_jax.cli.main import main
from bap_jax.cli.output import Output, output, speaking, tell
from bap_jax.cli.screen import progress_bar


def bap(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code, *capsys.readouterr()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs, one of them evaluated. Not to be changed."""
    out = tmp_path_factory.mktemp("runs")
    quick = (
        "--budget",
        "none",
        "--model.hidden",
        "16",
        "--ramp-end",
        0.5,
        "--validation-epsilon",
        "0,0.1",
        "--validation-limit",
        20,
    )
    for name, more in (("dense", ("--pruner", "dense")), ("sparse", ())):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in ("train", "--steps", 4, "--batch-size", 16, *quick, *more, "--out", out / "deep" / name)])
        assert ended.value.code == 0
    return out


def test_several_runs_are_evaluated_and_one_object_tells_it(folder, capsys):
    runs = [folder / "deep" / name for name in ("dense", "sparse")]
    plan = ("--attack", "fgsm", "--epsilon", "0.1", "--limit", 20, "--no-controls")
    code, printed, told = bap(capsys, "evaluate", *runs, folder / "nothing", *plan, "--json")
    found = json.loads(printed)
    assert code == found["status"] == 2 and found["command"] == "evaluate"
    assert [record["run"] for record in found["evaluations"]] == [str(run) for run in runs]
    assert all(0 <= row["accuracy"] <= 1 for record in found["evaluations"] for row in record["rows"])
    assert list(found["failed"]) == [str(folder / "nothing")] and "accuracies, %" in told and "attacking" not in printed
    code, printed, told = bap(capsys, "evaluate", *runs, *plan, "--quiet")
    assert code == 0 and "attacking" not in printed + told and printed.count("dense") >= 2


def test_runs_lists_what_there_is(folder, capsys):
    code, printed, _ = bap(capsys, "runs", folder, "--json")
    dense, sparse = json.loads(printed)["runs"]
    assert code == 0 and dense["run"].endswith("dense") and dense["finished"] and dense["step"] == sparse["step"] == 4
    assert sparse["sparsity"] == pytest.approx(0.9, abs=0.05) and dense["sparsity"] == 0.0 and sparse["method"] == "clean"
    assert 0 <= sparse["robust"] <= sparse["clean"] <= 1
    (folder / "broken" / "checkpoints").mkdir(parents=True)
    (folder / "broken" / "config.json").write_text("{")
    code, printed, _ = bap(capsys, "runs", folder)
    assert code == 0 and "damaged" in printed and "3 runs" in printed
    code, _, error = bap(capsys, "runs", folder / "nowhere")
    assert code == 2 and "FOLDERS" in error


def test_an_error_is_an_object_too(capsys):
    code, printed, error = bap(capsys, "--json", "train", "--final-sparsity", 2, "--out", "x")
    found = json.loads(printed)
    assert code == found["status"] == 2 and found["error"].startswith("--final-sparsity = 2.0") and found["error"] in error


def test_words_that_are_nearly_right(capsys):
    code, _, error = bap(capsys, "evalute", "runs/x")
    assert code == 2 and "did you mean evaluate?" in error
    code, _, error = bap(capsys, "data", "show", "cifar-10")
    assert code == 2 and "did you mean cifar10?" in error and "bap data prepare cifar10" in error and "[data]" in error
    code, printed, _ = bap(capsys, "--version")
    assert code == 0 and printed.startswith("bap_jax ") and " jax " in printed


def test_what_is_told_is_the_commands_own():
    with speaking(Output(json=True)) as said:
        tell(a=1)
    tell(b=2)
    assert said.told == {"a": 1} and output().told == {}


def test_a_bar_and_what_is_being_done_are_whole_at_80_columns():
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, height=10)
    with progress_bar("training", 12345, screen) as update:
        update(1234, "loss 0.123  sparsity 0.900  epsilon 0.123")
    shown = screen.file.getvalue()
    assert "1234/12345" in shown and "loss 0.123  sparsity 0.900  epsilon 0.123" in shown and "…" not in shown
