"""A run folder with a damaged file: a line that names it, and the rest of the run is usable."""

import errno
import io
import json
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table

from bap_jax.checkpoint import run_folder
from bap_jax.cli import main as main_module
from bap_jax.cli import screen
from bap_jax.cli.commands import report as report_command
from bap_jax.errors import RunWarning, StorageError
from bap_jax.runs import evaluate, loop, records, restore
from bap_jax.runs import run as run_module
from bap_jax.runs.loop import saved_step, train
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.runs.trust import code_in, remember
from bap_jax.sweeps import execute

OWN = "plugins_for_tests"
TINY = Settings(model=f"{OWN}:small", data=f"{OWN}:blobs", budget="none", batch_size=8, steps=8, log_every=1, validations=4)
TRAIN = ("train", "--model", TINY.model, "--data", TINY.data, "--budget", "none", "--batch-size", 8, "--steps", 8)
TRAIN += ("--log-every", 1, "--validations", 4)
PLAN = AttackPlan(epsilon="0,0.1", steps=2, controls=False)
EVALUATE = ("--epsilon", "0,0.1", "--steps", 2, "--no-controls")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small finished run with two checkpoints and an evaluation (not to be changed)."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(TINY, folder, save_seconds=0.0)
    evaluate.evaluate_run(folder, PLAN)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    copied = Path(shutil.copytree(trained, tmp_path / "run"))
    remember(copied, code_in(TINY.as_dict()).values())
    return copied


@pytest.fixture
def noted(bap):
    """Runs a command that says something besides; returns (exit status, output, the lines)."""

    def of(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("default", RunWarning)
            for module in (report_command, evaluate, records, restore, loop, execute, sys.modules["bap_jax.checkpoint.manager"]):
                getattr(module, "__warningregistry__", {}).clear()
            code, output, error = bap(*arguments)
        return code, output, [line for line in error.splitlines() if not line.startswith("set ")]

    return of


def steps_of(run):
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


def spoil(run, step, item):
    path = max((run / "checkpoints" / str(step) / item).rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    return path.relative_to(run / "checkpoints" / str(step))


def test_a_damaged_checkpoint_is_refused_everywhere_and_the_one_before_takes_its_place(run, refused, bap, left, trained):
    before, last = steps_of(run)[-2:]
    files = {item: spoil(run, last, item) for item in ("network", "state")}
    for command in (("evaluate", run, *EVALUATE), ("export", run)):
        message = refused(*command)
        assert f"step {last} in {run / 'checkpoints'} is damaged: {files['network']} " in message
        assert message.endswith(f"the checkpoint of step {before} is whole: --checkpoint {before}")
    message = refused(*TRAIN, "--out", run, "--resume")
    assert f"is damaged: {files['state']} " in message
    instead = f"remove {run / 'checkpoints' / str(last)}, and --resume goes on from step {before}"
    assert message.endswith(f"the checkpoint of step {before} is whole: {instead}")
    assert bap("evaluate", run, *EVALUATE, "--checkpoint", before)[0] == 0
    shutil.rmtree(run / "checkpoints" / str(last))
    code, output, _ = bap(*TRAIN, "--out", run, "--resume")
    assert code == 0 and f"resumed from step {before}" in output
    left(run).same_as(left(trained))


def test_a_sweep_notes_a_damaged_cell_and_does_the_others(run):
    """Its state is told, and going on with it fails with what is wrong."""
    last = steps_of(run)[-1]
    path = run / "checkpoints" / str(last) / "about" / "metadata"
    path.write_text("{")
    assert saved_step(run) == (last, False)
    cell = execute.SweepCell("a", TINY, run, (PLAN,))
    assert execute.state_of(cell) == f"interrupted at step {last}"
    with pytest.raises(loop.CheckpointError, match="about/metadata"):
        train(TINY, run, resume=True)


def test_a_stray_folder_is_said_and_the_run_is_usable(run, noted, left, trained):
    last = steps_of(run)[-1]
    for name in ("99", str(last + 1)):
        (run / "checkpoints" / name).mkdir()
    code, output, lines = noted("evaluate", run, *EVALUATE)
    assert code == 0 and f"step {last}" in output
    assert [line.rpartition("/checkpoints/")[2] for line in lines] == [
        f"{name} is no checkpoint: it has no about/metadata; it is left out" for name in (last + 1, 99)
    ]
    assert all(line.startswith("bap: note: ") for line in lines)
    code, output, lines = noted(*TRAIN, "--out", run, "--resume")
    assert code == 0 and "finished already" in output and len(lines) == 2
    shutil.rmtree(run / "checkpoints" / str(last))
    (run / "checkpoints" / str(last)).mkdir()  # where the last checkpoint has to go
    assert noted(*TRAIN, "--out", run, "--resume")[0] == 0
    for name in ("99", str(last + 1)):
        shutil.rmtree(run / "checkpoints" / name)
    left(run).same_as(left(trained))


def test_a_run_of_an_earlier_version_is_evaluated_and_that_is_said_once(run, noted):
    for path in run.glob("checkpoints/*/digests.json"):
        path.unlink()
    code, _, lines = noted("evaluate", run, *EVALUATE)
    assert code == 0 and len(lines) == 1
    assert "was saved by an earlier version, without digests: damage to its files may go unseen" in lines[0]


def edited(**changes):
    def edit(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


BAD_EVALUATIONS = {
    "cut": (lambda path: path.write_text(path.read_text()[:200]), "a JSON object as bap writes it"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "a JSON object as bap writes it"),
    "a list": (lambda path: path.write_text("[]"), "not a list"),
    "no rows": (edited(rows=None), "rows: None"),
    "a row without its accuracy": (edited(rows=[{"attack": "clean"}]), "rows as bap evaluate writes them (rows[0] = "),
    "no plan": (edited(plan={}), "a plan with its attack"),
    "a step in words": (edited(step="last"), "step: 'last'"),
    "a check in words": (edited(checks=["passed"]), "checks: 'passed'"),
}


@pytest.mark.parametrize("name", BAD_EVALUATIONS)
def test_an_evaluation_that_was_edited_is_named_and_left_out(name, run, noted, tmp_path):
    spoil, expected = BAD_EVALUATIONS[name]
    (path,) = run.glob("evaluations/*.json")
    shutil.copy(path, path.with_name("another.json"))
    shutil.copy(path.with_suffix(".npz"), path.with_name("another.npz"))
    spoil(path)
    with pytest.warns(RunWarning, match="left out"):
        (record,) = records.evaluations_of(run)
    assert record["name"] == "another"
    assert report_command._left_out.__doc__ and "overtaken" not in " ".join(leave_out(run))
    with pytest.warns(RunWarning, match="the evaluation is made again"):
        assert records.stored_evaluation(run, PLAN, record["step"]) is None
    path.with_name("another.json").unlink()
    code, _, lines = noted("report", run, "--out", tmp_path / "report", "--samples", 0)
    assert code == 2 and lines[0].startswith(f"bap: note: {path} = ") and expected in lines[0]
    assert f"bap evaluate {run}" in lines[1] and len(lines) == 2


def leave_out(run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        found = records.evaluations_of(run)
        return report_command._left_out([run], found, found)


def test_a_report_does_without_the_versions_and_the_layers_that_cannot_be_read(run, noted, tmp_path):
    (run / "versions.json").write_text("{")
    file = spoil(run, steps_of(run)[-1], "network")
    code, _, lines = noted("report", run, "--out", tmp_path / "report", "--samples", 0)
    assert code == 0 and (tmp_path / "report" / "report.html").exists()
    assert len(lines) == 2 and f"{run / 'versions.json'} = '{{'" in lines[0]
    assert "no layers of" in lines[1] and str(file) in lines[1]


def test_versions_that_cannot_be_read_are_named_on_resume(run, refused):
    (run / "versions.json").write_text("{")
    message = refused(*TRAIN, "--out", run, "--resume")
    assert f"{run / 'versions.json'} = '{{'" in message and "without it, the versions of now are noted" in message


def test_a_full_disk_stops_a_run_with_a_line_that_names_the_last_good_step(bap, run, monkeypatch, tmp_path):
    shutil.rmtree(run / "checkpoints" / str(steps_of(run)[-1]))
    good = steps_of(run)[-1]
    opened = open

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            self.file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(path, mode="r", **more):
        file = opened(path, mode, **more)
        return Full(file) if str(path).endswith("metrics.jsonl") and mode == "ab" else file

    monkeypatch.setattr(run_folder, "open", full, raising=False)
    code, _, error = bap(*TRAIN, "--out", run, "--resume")
    lines = [line for line in error.splitlines() if not line.startswith("set ")]
    kept = f"the checkpoint of step {good} is kept"
    assert (code, lines) == (2, [f"bap: error: {run / 'metrics.jsonl'} cannot be written: No space left on device; {kept}"])


def test_a_disk_that_is_full_at_once_is_said_before_the_first_step(monkeypatch, tmp_path):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bap_jax.checkpoint.manager.write_digests", full)
    monkeypatch.setattr(run_module, "compiled_step", lambda *_: pytest.fail("compiled a step"))
    with pytest.raises(StorageError, match=f"no checkpoint can be written to {tmp_path / 'run'}/checkpoints: No space left"):
        train(TINY, tmp_path / "run")


NAME = "run[seed=1] [red]x[/red] :fire:"


def test_a_run_of_any_name_is_trained_evaluated_and_shown_by_it(bap, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "400")
    run = tmp_path / NAME
    code, output, error = bap(*TRAIN, "--out", run)
    assert code == 0, error
    assert f"next: bap evaluate {run}" in output
    assert f"│ {run} " in output
    code, output, error = bap("evaluate", run, *EVALUATE)
    assert code == 0, error
    assert "".join(f"{run}, step 8".split()) in "".join(output.split())  # the title is as wide as its table


def test_the_screen_shows_text_as_it_is(capsys):
    table = Table(title=NAME)
    table.add_column(NAME)
    table.add_row(NAME)
    shown = screen.console()
    shown.print(table)
    shown.print(NAME, highlight=False)
    screen.show_pairs(NAME, [(NAME, NAME)], shown)
    assert capsys.readouterr().out.count(NAME) == 7


def test_a_progress_bar_shows_text_as_it_is():
    shown = screen.Console(force_terminal=True, width=200, file=io.StringIO(), markup=False, emoji=False, color_system=None)
    with screen.progress_bar(NAME, 2, shown) as update:
        update(1, f"at {NAME}")
    assert shown.file.getvalue().count(NAME) >= 2


def test_the_writes_that_a_failed_save_left_behind_are_not_shown():
    shown = []
    hook = main_module._ignoring(shown.append)
    for text in ("Event loop is closed", "something else"):
        hook(SimpleNamespace(exc_value=RuntimeError(text)))
    assert [str(one.exc_value) for one in shown] == ["something else"]
