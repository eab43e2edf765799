"""A run folder is data: the code that its configuration names runs only if the user named or trusted it."""

import dataclasses
import json
import re
import shutil
import sys
import types
import warnings

import pytest

from bap_jax.checkpoint import read_config
from bap_jax.errors import SettingError
from bap_jax.runs import trust
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.restore import settings_of
from bap_jax.runs.settings import PLUGINS, Settings
from bap_jax.runs.weights import export_run

OWN = "plugins_for_tests"
NAMES = ("--data", f"{OWN}:blobs", "--model", f"{OWN}:small")
SHORT = ("--budget", "none", "--batch-size", 8, "--steps", 4, "--log-every", 4, "--validations", 1, "--validation-steps", 1)
PLAN = ("--attack", "fgsm", "--epsilon", "0.1", "--no-controls")


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A place of its own for what is remembered."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "bap_jax" / "trusted"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with the user's own data and model, evaluated; not to be changed."""
    from bap_jax.runs.loop import train

    folder = tmp_path_factory.mktemp("trusted") / "mine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder.parent / "state"))
        short = {"batch_size": 8, "steps": 4, "validations": 1, "validation_steps": 1, "log_every": 4}
        train(Settings(data=NAMES[1], model=NAMES[3], budget="none", **short), folder)
        evaluate_run(folder, AttackPlan(attack="fgsm", epsilon="0.1", controls=False))
    return folder


@pytest.fixture
def theirs(trained, tmp_path, state):
    """The same run as a stranger would hand it over."""
    return shutil.copytree(trained, tmp_path / "theirs")


@pytest.fixture
def evil(monkeypatch):
    """A module that notes what is taken from it, and what of that is called."""
    done: list[str] = []

    class Evil(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):  # asked for of every module, by whatever looks at modules
                raise AttributeError(name)
            done.append(name)
            return lambda *_, **__: done.append(f"called {name}")

    module = Evil("evil")
    monkeypatch.setitem(sys.modules, "evil", module)
    return done


def poison(run, **changed):
    """The run folder with another configuration."""
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | changed))
    return run


BUILT_IN = {"data": "digits", "model": "mlp"}
POISON = [{"data": "evil:data"}, {"model": "evil:net"}, {"data": "evil:data", "model": "evil:net"}]


@pytest.mark.parametrize("changed", POISON, ids=str)
def test_a_strangers_names_are_refused_by_every_command_that_reads_them(changed, theirs, trained, evil, refused, tmp_path):
    poison(theirs, **BUILT_IN | changed)
    out = tmp_path / "out"
    for command in (
        ("evaluate", theirs, *PLAN),
        ("export", theirs, "--out", out / "model.safetensors"),
        ("train", "--config", theirs / "config.json", "--out", out),
    ):
        line = refused(*command)
        assert str(theirs / "config.json") in line and str(changed) in line and "--trust" in line and "docs/trust.md" in line
    with pytest.raises(SettingError, match="--trust"):
        evaluate_run(theirs, AttackPlan())
    with pytest.raises(SettingError, match="--trust"):
        export_run(theirs)
    assert evil == [] and not out.exists()


def test_a_report_leaves_a_strangers_sample_images_out(theirs, evil, bap, tmp_path):
    poison(theirs, data="evil:data")
    record = next((theirs / "evaluations").glob("*.json"))
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"plan": content["plan"] | {"attack": "evil:threat"}}))
    code, _, error = bap("report", theirs, "--out", tmp_path / "report")
    assert code == 0, error
    assert "No sample images" in (tmp_path / "report" / "report.md").read_text() and evil == []


def test_a_network_to_transfer_from_may_be_a_strangers_too(theirs, evil, refused, bap, tmp_path):
    mine = shutil.copytree(theirs, tmp_path / "mine")
    poison(theirs, model="evil:net", data="evil:data")
    line = refused("evaluate", mine, *PLAN, "--trust", "--transfer-from", tmp_path / "absent")
    assert "absent" in line
    line = refused("evaluate", mine, *PLAN, "--transfer-from", theirs)
    assert "{'model': 'evil:net'}" in line and evil == []  # its data is not made use of


@pytest.mark.parametrize("setting", trust.CODE)
def test_training_with_a_strangers_settings(setting, theirs, evil, refused, tmp_path):
    poison(theirs, **BUILT_IN | {setting: "evil:code"})
    line = refused("train", "--config", theirs / "config.json", "--out", tmp_path / "run")
    assert f"{{{setting!r}: 'evil:code'}}" in line and evil == []


def test_a_name_on_the_command_line_is_the_users_own(theirs, evil, bap, tmp_path):
    config = ("--config", theirs / "config.json", "--out", tmp_path / "run")
    named = trust.Trust(names=trust.names_in(list(map(str, (*config, *NAMES)))))
    assert settings_of(theirs, named).model == f"{OWN}:small"
    poison(theirs, pruner="evil:pruner")
    with pytest.raises(SettingError, match=r"= \{'pruner': 'evil:pruner'\}"):
        settings_of(theirs, named)
    assert evil == []
    code, _, error = bap("train", *config, *NAMES, "--pruner", "dense")  # what is replaced is not used
    assert code == 0 and evil == [], error
    assert read_config(tmp_path / "run")["pruner"] == "dense"


def test_a_folder_does_not_name_code_by_its_own_name(theirs, evil, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    poison(theirs, model="evil:net").rename(tmp_path / "evil:net")
    assert "--trust" in refused("evaluate", "evil:net", *PLAN)
    assert "--trust" in refused("train", "--config", "evil:net/config.json", "--out", "evil:net")
    assert evil == []


def test_one_trains_and_goes_on_without_a_word_and_a_copy_asks(bap, refused, state, tmp_path):
    run = tmp_path / "run"
    code, _, error = bap("train", *NAMES, *SHORT, "--out", run)
    assert code == 0, error
    (note,) = state.iterdir()
    assert json.loads(note.read_text()) == {"folder": str(run), "names": [f"{OWN}:blobs", f"{OWN}:small"]}
    assert not any(run in path.parents for path in state.iterdir())
    for command in (
        ("evaluate", run, *PLAN),
        ("train", *NAMES, *SHORT, "--out", run, "--resume"),
        ("train", "--config", run / "config.json", "--out", run, "--resume"),
        ("export", run),
    ):
        code, _, error = bap(*command)
        assert code == 0, error
    moved = shutil.copytree(run, tmp_path / "moved")
    assert "--trust" in refused("evaluate", moved, *PLAN)
    (tmp_path / "link").symlink_to(run)
    assert settings_of(tmp_path / "link").model == f"{OWN}:small"
    poison(run, model="evil:net")  # remembered are the names, not whatever the folder says next
    assert "{'model': 'evil:net'}" in refused("evaluate", run, *PLAN)


def test_trust_is_given_once(theirs, bap, refused, state):
    assert "--trust" in refused("evaluate", theirs, *PLAN)
    assert not state.exists()
    code, _, error = bap("evaluate", theirs, *PLAN, "--trust")
    assert code == 0, error
    code, _, error = bap("evaluate", theirs, *PLAN)
    assert code == 0, error
    (note,) = state.iterdir()
    note.write_text("{")
    assert "--trust" in refused("evaluate", theirs, *PLAN)  # a damaged note is none
    note.write_text(json.dumps({"folder": "/elsewhere", "names": [f"{OWN}:blobs", f"{OWN}:small"]}))
    assert "--trust" in refused("evaluate", theirs, *PLAN)


def test_trust_in_a_network_is_none_in_its_other_code(theirs, state):
    poison(theirs, pruner="evil:pruner")
    everything = trust.Trust(everything=True)
    settings_of(theirs, everything, uses=trust.NETWORK)
    assert settings_of(theirs, uses=trust.NETWORK).pruner == "evil:pruner"
    with pytest.raises(SettingError, match="evil:pruner"):
        settings_of(theirs)


def test_where_nothing_can_be_remembered_one_is_told(theirs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=re.escape(f"using {theirs} again will take --trust")):
        assert settings_of(theirs, trust.Trust(everything=True)).model == f"{OWN}:small"


def test_names_that_are_no_code_are_left_alone():
    assert set(trust.CODE) == {"data", *PLUGINS}
    own = {name: f"mine:{name}" for name in trust.CODE}
    assert trust.code_in(own) == own and trust.code_in(own, trust.NETWORK) == {n: own[n] for n in ("data", "model")}
    assert trust.code_in(dataclasses.asdict(Settings())) == {}
    for data in ("mnist", "mnist:3.0.1", "name/config:1.*.*", "name:*"):
        assert trust.code_in({"data": data}) == {}
    for data in ("somebody:set", "somebody:set/config", "somebody:set:1.0.0"):  # TFDS fetches the code of these
        assert trust.code_in({"data": data}) == {"data": data}
    assert trust.code_in({"data": ["mine:data"], "model": None}) == {}
    assert trust.names_in([]) == frozenset()


def test_a_sweep_s_names_are_trusted_in_its_cells(bap, refused, state, tmp_path):
    (tmp_path / "own_sweep.py").write_text(
        "from bap_jax.sweeps.grid import Sweep\nfrom bap_jax.runs.plan import AttackPlan\n"
        "from bap_jax.runs.settings import Settings\n"
        f"own = {{'data': {NAMES[1]!r}, 'model': {NAMES[3]!r}}}\n"
        "base = Settings(**own, budget='none', batch_size=8, steps=4, validations=1, validation_steps=1)\n"
        "SWEEP = Sweep(base=base, seeds=(0,), plans=(AttackPlan(attack='fgsm', epsilon='0.1', controls=False),))\n"
    )
    command = ("sweep", tmp_path / "own_sweep.py", "--out", tmp_path / "swept")
    code, _, error = bap(*command)
    assert code == 0, error
    report = tmp_path / "swept" / "report.md"
    assert "No sample images" not in report.read_text()
    shutil.rmtree(state)  # as on another machine: whoever gives the sweep names its code
    (cell,) = [path.parent for path in (tmp_path / "swept").rglob("config.json")]
    assert "--trust" in refused("evaluate", cell, *PLAN)
    shutil.rmtree(cell / "evaluations")
    code, _, error = bap(*command)
    assert code == 0, error
    assert "No sample images" not in report.read_text() and read_config(cell)["model"] == NAMES[3]


def test_an_import_remembers_what_it_was_given(trained, bap, state, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setenv("XDG_STATE_HOME", str(trained.parent / "state"))
        files, _ = export_run(trained, out=tmp_path / "model.safetensors")
        monkeypatch.setenv("XDG_STATE_HOME", str(state.parent.parent))
    code, _, error = bap("import", files.weights, *NAMES, "--out", tmp_path / "imported")
    assert code == 0, error
    assert settings_of(tmp_path / "imported", uses=trust.NETWORK).data == NAMES[1]
