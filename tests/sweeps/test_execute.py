"""Sweeps: their cells, that each ends as it would by itself, and what a crash, a failure or a bad file leaves behind."""

import dataclasses
import json
import random
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import sweep_slowly
from sweeps_for_tests import BASE, BROKEN, OWN, SMALL

from bap_jax.cli.commands import sweep as sweep_command
from bap_jax.errors import NonFiniteError, SettingError
from bap_jax.report import read_csv, write_csv
from bap_jax.runs import loop
from bap_jax.runs.datasets import load_data
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.report_inputs import rows_of
from bap_jax.runs.run import prepare
from bap_jax.runs.settings import Settings
from bap_jax.sweeps import execute, vmapped
from bap_jax.sweeps.grid import Process, Sweep, cell_name


def names(some: Sweep) -> list[str]:
    return [cell_name(cell) for cell in some.cells()]


def test_every_combination_is_a_cell_and_what_an_arm_names_stays():
    some = Sweep(
        data=("digits", {"data": "mnist", "model": "lenet5", "steps": 9}),
        arms=({"budget": "none", "seed": 7}, {"budget": "uniform"}, {"pruner": "dense"}),
        epsilons=(0.1, "8/255"),
        sparsities=(0.5, 0.9),
        processes=(Process(0.1, 0.2), Process(0.1, 0.4, 3)),
        seeds=range(3),
    )
    cells = some.cells()
    assert len(cells) == len(set(map(cell_name, cells))) == 2 * (4 + 2 * 12 + 3)
    assert {(cell.data, cell.model, cell.steps) for cell in cells} == {("digits", "mlp", None), ("mnist", "lenet5", 9)}
    assert {cell.seed for cell in cells if cell.budget == "none"} == {7}
    assert {cell.epsilon for cell in cells if cell.budget == "uniform"} == {"0.1", "8/255"}
    assert {cell.epsilon for cell in cells if cell.budget != "uniform"} == {None}
    assert {(cell.ramp_begin, cell.ramp_end, cell.frequency) for cell in cells if cell.pruner != "dense"} == {
        (0.1, 0.2, None),
        (0.1, 0.4, 3),
    }


def test_plans_may_go_by_data_set():
    plan = AttackPlan(epsilon="0,8/255")
    some = Sweep(data=("digits", "mnist"), plans={"digits": (AttackPlan(),), "mnist": (AttackPlan(), plan)})
    assert [some.plans_of(cell)[-1] for cell in some.cells()] == [AttackPlan(), plan]
    with pytest.raises(SettingError, match="plans for the data set mnist"):
        dataclasses.replace(some, plans={"digits": (plan,)}).cells()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ({"sparsity": 0.5},)}, "'sparsity' is none"),
        ({"arms": {"budget": "none"}}, "a sequence"),
        ({"arms": ("blind",)}, "settings of bap train"),
        ({"seeds": 3}, "seeds = 3: expected a sequence"),
        ({"sparsities": (90,)}, "final-sparsity = 90"),
        ({"processes": ((0.1, 0.2),)}, r"Process\(begin, end, frequency\)"),
        ({"plans": AttackPlan()}, "a sequence of AttackPlan"),
        ({"plans": (AttackPlan(attack="pgf"),)}, "--attack = 'pgf'"),
        ({"arms": ({"budget": "uniform"},)}, "--budget.epsilon = None: expected a radius"),
        ({"data": ({"data": "digits", "steps": 5}, {"data": "digits", "steps": 6})}, r"steps = \[5, 6\]: expected one value"),
    ],
)
def test_a_sweep_that_makes_no_sense(change, message):
    with pytest.raises(SettingError, match=message):
        Sweep(**change).cells()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "a Python file that defines SWEEP"),
        ("SWEEPS = 1", "a file that defines SWEEP; this one does not"),
        ("SWEEP = [1]", "a bap_jax.sweeps.grid.Sweep, not a list"),
        ("import nothing_of_this_name", "ended with ModuleNotFoundError"),
        ("from bap_jax.sweeps.grid import Sweep\nSWEEP = Sweep(seeds=())\nraise SystemExit(3)", "ended with SystemExit: 3"),
        ("from bap_jax.sweeps.grid import Sweep\nSWEEP = Sweep(arms=({'budget': 'fancy'},))", "--budget = 'fancy'"),
        ("from bap_jax.sweeps.grid import Sweep\nSWEEP = Sweep(data=('nowhere',))", "nowhere"),
    ],
)
def test_a_bad_file_is_refused_before_any_work(text, message, refused, tmp_path):
    file, out = tmp_path / "some_sweep.py", tmp_path / "out"
    if text is not None:
        file.write_text(text)
    assert message in refused("sweep", file, "--out", out, "--data-dir", tmp_path / "no data")
    assert not (out / execute.CELLS).exists()


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Folders of undisturbed sweeps of SMALL, made when first asked for."""
    found: dict[str, Path] = {}

    def folder(how: str) -> Path:
        if how not in found:
            found[how] = tmp_path_factory.mktemp(how)
            execute.run_sweep(SMALL, found[how], together=how)
        return found[how]

    return folder


def cell_folder(out: Path, cell: Settings) -> Path:
    return out / execute.CELLS / cell_name(cell)


def groups_of(out: Path) -> list[int]:
    return [len(group["cells"]) for group in json.loads((out / execute.BOOK).read_text())["groups"]]


def test_a_loop_is_the_cells_one_by_one_bit_for_bit(swept, left, tmp_path):
    for number in (0, -1):
        cell = SMALL.cells()[number]
        loop.train(cell, tmp_path / str(number))
        left(cell_folder(swept("loop"), cell)).same_as(left(tmp_path / str(number)))


def test_together_is_the_cells_one_by_one_to_rounding(swept, left):
    """The arms share a compile as they differ in numbers alone; the state is that of a run by itself, leaf by leaf."""
    assert groups_of(swept("vmap")) == [4]
    for cell in SMALL.cells():
        one, other = (left(cell_folder(swept(how), cell)) for how in ("loop", "vmap"))
        assert (one.latest, one.finished, one.config) == (other.latest, other.finished, other.config)
        for mine, theirs in zip(jax.tree.leaves(one.network.masks), jax.tree.leaves(other.network.masks), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert one.state.keys() == other.state.keys()
        for path, leaf in one.state.items():
            np.testing.assert_allclose(leaf, other.state[path], rtol=1e-4, atol=1e-6, err_msg=path)
        alone = [line for line in one.metrics if "mask_distance" not in line]  # how far masks move is followed in a loop alone
        assert [line.keys() for line in alone] == [line.keys() for line in other.metrics]
        losses = [[line["loss"] for line in run.metrics if "loss" in line] for run in (one, other)]
        np.testing.assert_allclose(*losses, rtol=1e-4)


def test_what_is_finished_is_left_alone(swept, monkeypatch):
    out, shown = swept("vmap"), []
    before = sorted((path, path.stat().st_mtime_ns) for path in (out / execute.CELLS).rglob("*"))
    for name in ("train", "train_together", "evaluate_run", "load_data"):
        monkeypatch.setattr(execute, name, lambda *_, **__: pytest.fail("computed again"))
    again = execute.run_sweep(SMALL, out, told=lambda done, total, what: shown.append((done, total)))
    measured = [record["rows"][0]["sparsity_measured"] for record in again.records]
    assert measured == pytest.approx([0.5, 0.5, 0.8, 0.8], abs=0.01)  # though the cells share a compiled step
    assert not again.failed and set(shown) == {(4, 4)}
    assert sorted((path, path.stat().st_mtime_ns) for path in (out / execute.CELLS).rglob("*")) == before
    with pytest.raises(SettingError, match=r"batch_size = 4: expected"):
        execute.run_sweep(dataclasses.replace(SMALL, base=dataclasses.replace(BASE, batch_size=4)), out)


class Crash(BaseException):
    """Ends a sweep as a crash would: nothing may catch it."""


def crash_in(monkeypatch, lane: int, step: int) -> None:
    """The sweep crashes when a lane is about to save a step: those before it have saved it, those behind it have not."""
    settle, count = loop.Session.settle, iter(range(10**6))

    def crashing(self, done, state, metrics, *, saving):
        if done == step and next(count) == lane:
            raise Crash
        return settle(self, done, state, metrics, saving=saving)

    monkeypatch.setattr(loop.Session, "settle", crashing)


def test_lanes_that_crashed_at_different_steps_end_as_if_nothing_had_been(swept, left, monkeypatch, tmp_path):
    monkeypatch.setattr(execute, "SAVE_SECONDS", 0.0)
    for lane, step in ((1, 6), (2, 12)):
        with monkeypatch.context() as patch:
            crash_in(patch, lane, step)
            with pytest.raises(Crash):
                execute.run_sweep(SMALL, tmp_path, together="vmap")
    states = {execute.state_of(cell) for cell in execute.cells_of(SMALL, tmp_path)}
    assert states == {"trained, 1 evaluations to do", "interrupted at step 9"}
    shown: list[float] = []
    execute.run_sweep(SMALL, tmp_path, told=lambda done, total, what: shown.append(done))  # as noted, not as is faster now
    assert shown == sorted(shown) and shown[-1] == 4 and len(set(shown)) > 3
    for cell in SMALL.cells():
        left(cell_folder(tmp_path, cell)).same_as(left(cell_folder(swept("vmap"), cell)))


@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_a_failed_cell_is_noted_and_the_rest_goes_on(how, swept, left, tmp_path):
    some = dataclasses.replace(SMALL, arms=(BROKEN, SMALL.arms[0]))
    for _ in range(2):  # the second time only what failed is tried
        result = execute.run_sweep(some, tmp_path, together=how)
        assert list(result.failed) == names(some)[:2] and len(result.records) == 2
    for cell, name in zip(some.cells(), names(some), strict=True):
        note = tmp_path / execute.CELLS / name / execute.FAILED
        state = json.loads((tmp_path / execute.BOOK).read_text())["cells"][name]
        if name in result.failed:
            assert json.loads(note.read_text())["error"] == state["error"] == NonFiniteError.__name__
            assert state["state"] == "failed" and "is nan" in state["message"]
        else:
            assert not note.exists() and state == {"state": "finished"}
            mine, alone = left(tmp_path / execute.CELLS / name), left(cell_folder(swept("loop"), cell))
            np.testing.assert_allclose(mine.metrics[-2]["loss"], alone.metrics[-2]["loss"], rtol=1e-4)


def test_a_cell_that_cannot_begin_or_be_evaluated_is_noted_too(monkeypatch, tmp_path):
    some = dataclasses.replace(SMALL, arms=SMALL.arms[:1])
    first, second = names(some)
    called: list[str] = []
    train, evaluate = execute.train, execute.evaluate_run

    def fails_first(settings, *rest, **more):
        return 1 / 0 if cell_name(settings) == first else train(settings, *rest, **more)

    def counted(call):
        return lambda *rest, **more: called.append(call.__name__) or call(*rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "train", fails_first)
        patch.setattr(execute, "evaluate_run", lambda *_, **__: [][0])
        failed = execute.run_sweep(some, tmp_path, together="loop").failed
    told = {name: (note["error"], note["while"]) for name, note in failed.items()}
    assert told == {first: ("ZeroDivisionError", "training"), second: ("IndexError", "evaluating")}
    states = [execute.state_of(cell).split(",")[0] for cell in execute.cells_of(some, tmp_path)]
    assert states == ["failed: division by zero", "trained"]
    for call in (train, evaluate):
        monkeypatch.setattr(execute, call.__name__, counted(call))
    assert not execute.run_sweep(some, tmp_path, together="loop").failed
    assert sorted(called) == ["evaluate_run", "evaluate_run", "train"] and not list(tmp_path.rglob(execute.FAILED))


def test_two_processes_do_not_sweep_into_one_folder(tmp_path):
    with execute.lock_folder(str(tmp_path)), pytest.raises(SettingError, match="no other process"):
        execute.run_sweep(SMALL, tmp_path)


def prepared(**changes):
    settings = dataclasses.replace(BASE, budget="uniform", epsilon="0.1", frequency=2, **changes)
    return prepare(settings, load_data(settings), 1)


def test_what_may_train_together():
    key = vmapped.group_key(prepared())
    same = {"seed": 3, "final_sparsity": 0.3, "ramp_end": 0.9, "learning_rate": 0.1, "initial_sparsity": 0.1}
    assert vmapped.group_key(prepared(**same)) == key
    for changes in ({"ramp_begin": 0.5}, {"steps": 13}, {"batch_size": 4}, {"scope": "global"}, {"log_every": 3}):
        assert vmapped.group_key(prepared(**changes)) != key
    assert vmapped.group_key(prepared(loss=f"{OWN}:own_loss")) is None


def conditionals(step, state, batches, axes) -> int:
    return str(jax.make_jaxpr(jax.vmap(step, in_axes=(axes, 0), out_axes=(axes, 0)))(state, batches)).count(" cond[")


def test_a_mask_update_stays_a_branch():
    """Batched, what it is due by would turn it into a select: masks searched at every step."""
    runs = [prepared(ramp_end=end) for end in (0.5, 0.9)]
    states = [vmapped._first_state(run) for run in runs]
    shared = vmapped.shared_in(runs[0].recipe(), states[0])
    state = vmapped.stack(states, shared)
    assert state.prune.end_steps.tolist() == [6, 11]
    batches = jax.tree.map(lambda leaf: np.repeat(leaf, 2, 0), next(vmapped.Lanes.of(runs).batches(runs[0], 0, 1)))
    settings = runs[0].settings.traced()
    step = vmapped.step_of(settings, vmapped.traced_recipe(settings, 3, runs[0].splits.train.bounds), 3)
    axes = vmapped.axes_of(state, shared)
    batched = axes._replace(prune=axes.prune._replace(ramp=axes.prune.ramp._replace(frequency=0)))
    wide = state._replace(prune=state.prune._replace(ramp=state.prune.ramp._replace(frequency=np.array([2, 2], np.int32))))
    assert conditionals(step, state, batches, axes) == conditionals(step, wide, batches, batched) + 1


def test_how_runs_train_is_chosen_by_timing_them(monkeypatch):
    runs = [prepare(cell, load_data(cell), 1) for cell in SMALL.cells()]
    step = vmapped.group_step(runs[0])
    monkeypatch.setattr(step, "alone_seconds", 100.0)
    few = vmapped.choose(runs, 1)
    assert (few.lanes, few.together_seconds) == (1, None) and "compiling" in few.why
    many = vmapped.choose(runs, 10**9)
    assert many.loop_seconds > 0 and many.lanes == (4 if many.together_seconds < many.loop_seconds else 1)
    assert vmapped.choose(runs, 1, forced=True).lanes == 4
    needed = min(vmapped.bytes_of(compiled) for compiled in step._compiled.values())
    monkeypatch.setattr(vmapped, "free_bytes", lambda: needed // 6)
    none = vmapped.choose(runs, 1, forced=True)
    assert none.lanes == 1 and "memory" in none.why


def test_the_command(bap, monkeypatch, tmp_path):
    """Lists, sweeps, reports, and exits with 1 as long as a cell fails."""

    def rows_alone(records, out, **_):
        return dict.fromkeys(("report.html", "results.csv"), write_csv(rows_of(records), out / "results.csv"))

    monkeypatch.setattr(sweep_command, "write_runs_report", rows_alone)  # the pictures take their time, and have their own tests
    file, out = tmp_path / "broken.py", tmp_path / "out"
    file.write_text(f"""
import dataclasses
from sweeps_for_tests import BROKEN, SMALL
SWEEP = dataclasses.replace(SMALL, arms=({BROKEN!r}, SMALL.arms[0]), processes=SMALL.processes[:1])
""")
    code, output, error = bap("sweep", file, "--out", out, "--dry-run")
    assert code == 0 and output.count("to do") == 2 and not out.exists(), error
    code, output, error = bap("sweep", file, "--out", out, "--together", "loop")
    assert code == 1 and "1 of 2 cells failed" in output and "NonFiniteError" in output, error
    assert (out / "results.csv").read_text().count("uniform 0.1") == 2 and str(out / "results.csv") in output
    code, output, _ = bap("sweep", file, "--out", out, "--dry-run")
    assert code == 0 and output.count("finished") == 1 and output.count("failed:") == 1


def results_in(sweep):
    """What a sweep's CSV says, but for how long training took."""
    rows = read_csv(sweep / "results.csv")
    assert rows and all({"train_seconds", "train_images_per_second"} <= row.keys() for row in rows)
    return [
        {name: value for name, value in row.items() if not name.startswith(("train_seconds", "train_images"))} for row in rows
    ]


@pytest.mark.soak
@pytest.mark.timeout(1800)  # it starts a dozen processes
@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_a_sweep_that_was_killed_often(how, environment, python, tmp_path):
    """At random moments; at the end nothing tells it from one that was left alone."""
    chance, command = random.Random(0), [python, sweep_slowly.__file__, how]
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    subprocess.run([*command, str(undisturbed)], env=environment, check=True, capture_output=True)
    kills = 0
    while kills < 4:
        process = subprocess.Popen([*command, str(disturbed)], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(chance.randrange(1, 60 if how == "loop" else 20)):  # together, the cells have 60 lines, not 60 each
            if not process.stdout.readline():
                break
        time.sleep(0.1 * chance.random())
        process.send_signal(signal.SIGKILL)
        kills += 1
        if process.wait() == 0:
            break
        process.stdout.close()
    subprocess.run([*command, str(disturbed)], env=environment, check=True, capture_output=True)
    assert kills > 2
    assert results_in(disturbed) == results_in(undisturbed)


def test_arms_share_a_network_of_the_sweep_s_own(tmp_path):
    """Trained once for a seed, before the first arm that begins with it; what names no such network is refused."""
    start = {"init_from": "starts/dense"}
    some = dataclasses.replace(
        SMALL,
        arms=({**start, "budget": "none"}, {**start, "budget": "none", "learning_rate": 1e-2}),
        starts={"dense": {"pruner": "dense", "budget": "none", "steps": 3}},
        processes=SMALL.processes[:1],
        seeds=(0, 1),
    )
    assert len(some.cells()) == 4 and all("init-from-dense" in name for name in names(some))
    swept = execute.run_sweep(some, tmp_path, together="loop")
    assert not swept.failed and len(swept.records) == 4
    starts = sorted(path.parent for path in (tmp_path / "starts").rglob("config.json"))
    assert [path.relative_to(tmp_path).parts[2:] for path in starts] == [("seed0", "dense"), ("seed1", "dense")]
    digests = [json.loads((cell.folder / "config.json").read_text())["init_digest"] for cell in execute.cells_of(some, tmp_path)]
    assert digests[0] == digests[2] != digests[1] == digests[3]
    before = [path.stat().st_mtime_ns for path in starts]
    assert len(execute.run_sweep(some, tmp_path, together="loop").records) == 4
    assert before == [path.stat().st_mtime_ns for path in starts]
    with pytest.raises(SettingError, match=r"starts/ and one of dense"):
        dataclasses.replace(some, arms=({"init_from": "starts/robust"},)).cells()
    failing = dataclasses.replace(some, starts={"dense": {**BROKEN, "pruner": "dense"}})
    assert {note["while"][:15] for note in execute.run_sweep(failing, tmp_path / "failing").failed.values()} == {
        "training starts"
    }
