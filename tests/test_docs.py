"""The pages: their examples run, their commands can be read, the site lists them all and is built with what it says."""

import re
import shlex
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from packaging.requirements import Requirement

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


def commands_of(page):
    """The lines of a page that call `bap`, without their comments."""
    lines = (line.partition("  #")[0].strip() for line in page.splitlines() if line.startswith("    bap "))
    return [line for line in lines if "…" not in line and "--help" not in line]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/resnet18.md", "docs/tutorials/sweep.md"])
def test_the_commands_of_a_page_can_be_read(page, tmp_path, monkeypatch):
    from bap_jax.cli.main import read

    commands = commands_of((DOCS.parent / page).read_text(encoding="utf-8"))
    assert commands
    for command in commands:
        assert callable(read(shlex.split(command)[1:]))


def test_every_page_is_in_the_sites_list_and_tutorials_that_run_say_so():
    listed = (DOCS / "index.md").read_text(encoding="utf-8").split()
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    written = {page for page in pages - {"index"} if not page.startswith("reference/")}
    assert written == {name for name in listed if name in written} and "reference/index" in listed
    run = {path.stem for path in (DOCS / "tutorials").glob("*.md") if "file_format: mystnb" in path.read_text(encoding="utf-8")}
    assert run == {"own-network", "any-function", "add-a-pruner", "sweep"}


def test_what_the_site_is_built_with_is_the_extra():
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ranges = {Requirement(line).name: Requirement(line).specifier for line in project["optional-dependencies"]["docs"]}
    pins = [Requirement(line) for line in (DOCS / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert {pin.name for pin in pins} == ranges.keys()
    assert all(ranges[pin.name].contains(str(pin.specifier).removeprefix("==")) for pin in pins)
    cited = (DOCS.parent / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {project['version']}" in cited
