"""The files around the code: pins and ranges agree, imports are declared, the README's commands are those that run."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED_EXTRAS = ("dev", "tensorboard")
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def read_pins(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def disagreements(ranges: list[str], pins: list[Requirement], python: str) -> list[str]:
    """Where a range of pyproject.toml has no pin that satisfies it, or two, under one version of Python on Linux."""
    machine = {"python_full_version": python, "python_version": python.rpartition(".")[0], "sys_platform": "linux"}
    machine |= {"platform_system": "Linux", "platform_machine": "x86_64", "implementation_name": "cpython"}
    chosen: dict[str, list[str]] = {}
    for pin in pins:
        if pin.marker is None or pin.marker.evaluate(machine):
            chosen.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    found = [f"Python {python}: {name} is pinned to {versions}" for name, versions in chosen.items() if len(versions) > 1]
    for wanted in map(Requirement, ranges):
        versions = chosen.get(canonicalize_name(wanted.name), [])
        if not versions or not wanted.specifier.contains(versions[0], prereleases=True):
            found.append(f"Python {python}: pyproject.toml asks for {wanted}, requirements.txt has {versions or 'nothing'}")
    return found


def locked_ranges() -> list[str]:
    return PROJECT["dependencies"] + [line for extra in LOCKED_EXTRAS for line in PROJECT["optional-dependencies"][extra]]


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_and_ranges_agree(python):
    pins = read_pins((ROOT / "requirements.txt").read_text())
    assert disagreements(locked_ranges(), pins, python) == [], "run make lock"


@pytest.mark.parametrize(
    ("ranges", "pins"),
    [
        (["jax>=0.11"], "jax==0.10.2"),
        (["jax>=0.10"], "jaxlib==0.10.2"),
        (["jax>=0.10"], "jax==0.10.2 ; python_full_version >= '3.12'"),
        (["jax>=0.10"], "jax==0.10.2\njax==0.12.0"),
    ],
)
def test_the_comparison_finds_what_is_wrong(ranges, pins):
    assert len(disagreements(ranges, read_pins(pins), "3.11.0")) == 1


def test_every_requirement_is_pinned_and_none_names_a_place():
    text = (ROOT / "requirements.txt").read_text()
    assert "#    make lock" in text.splitlines()[:3]
    for pin in read_pins(text):
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)) and pin.url is None, pin
    assert not re.search(r"://|^\s*-|\s/", text, re.MULTILINE)


def test_the_extras():
    assert PROJECT["optional-dependencies"].keys() >= {"cuda", "tpu", "data", "tensorboard", "dev"}
    assert not {"tensorflow", "torch"}.intersection(Requirement(line).name for line in locked_ranges())
    assert PROJECT["requires-python"] == ">=3.11"


def third_party(source: str) -> set[str]:
    """Top-level names of the packages that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"bap_jax", "experiments"}


def test_whatever_the_package_imports_is_declared():
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for extra in ("tensorboard", "data"):
        declared |= {canonicalize_name(Requirement(line).name) for line in PROJECT["optional-dependencies"][extra]}
    providers = importlib.metadata.packages_distributions()
    for file in (ROOT / "bap_jax").rglob("*.py"):
        for name in third_party(file.read_text()):
            offered = {canonicalize_name(distribution) for distribution in providers.get(name, [name])}
            assert offered & declared, f"{file.relative_to(ROOT)} imports {name}, which pyproject.toml does not declare"


def test_third_party_sees_local_and_aliased_imports():
    source = "import os, numpy as np\nfrom . import x\nfrom bap_jax import y\ndef f():\n    from tqdm.auto import tqdm\n"
    assert third_party(source) == {"numpy", "tqdm"}


def test_licence_and_scripts():
    assert PROJECT["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence and "END OF TERMS AND CONDITIONS" in licence
    module, _, function = PROJECT["scripts"]["bap"].partition(":")
    assert importlib.util.find_spec(module) is not None
    assert function == "main"


def indented_or_fenced(markdown: str) -> list[str]:
    """The lines of a page that stand in code blocks, without prompts and comments."""
    lines, fenced = [], False
    for line in markdown.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip().removeprefix("$ ").partition("#")[0].strip())
    return lines


def test_the_check_run_calls_the_readme_s_commands_unchanged():
    shown = indented_or_fenced((ROOT / "README.md").read_text())
    called = re.findall(r'^section "[^"]*" (.*)$', (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert "make test" in shown and "make test" in called
    assert {"make lint", "make types", "make soak"} <= set(called)
    assert "make demo" in shown


def test_the_check_run_is_a_strict_executable_script():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True, stdin=subprocess.DEVNULL)


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make in the repository, free of the variables of a make that may be running these tests."""
    ours = {"PYTHON", "VENV", "SEEDS", "TESTS", "WORKERS", "UV"}
    clean = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=clean | variables, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


@needs_make
def test_what_make_would_run():
    python = f"PYTHON={sys.executable}"
    venv = f".venv-{sys.version_info.major}.{sys.version_info.minor}"
    tests = make("-n", "test", python).stdout.splitlines()[-1].strip()
    assert tests == f"{venv}/bin/python -m pytest -m 'not soak' -n 2 --dist loadfile"
    assert "pytest -m soak" in make("-n", "soak", python).stdout
    assert make("-n", "demo", python, SEEDS="3").stdout.splitlines()[-1] == f"{venv}/bin/bap demo --seeds 3 --out runs/demo"
    core = make("-n", "test", "TESTS=core", python).stdout.splitlines()[-1].split(" --dist loadfile ")[1].split()
    assert "tests/attacks" in core and "bap_jax/training" in core
    assert all((ROOT / folder).is_dir() for folder in core)


@needs_make
def test_make_says_what_is_wrong_with_an_interpreter(tmp_path):
    absent = make("environment", "PYTHON=python9.9", f"VENV={tmp_path}/venv")
    assert absent.returncode != 0
    assert 'needs Python 3.11 or newer, and "python9.9" does not run here' in absent.stderr
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$2" in *exit*) exit 1 ;; *print*) echo 3.9 ;; esac\n')
    old.chmod(0o755)
    refused = make("environment", f"PYTHON={old}", f"VENV={tmp_path}/venv")
    assert refused.returncode != 0
    assert "is Python 3.9." in refused.stderr
    assert not (tmp_path / "venv").exists()


@needs_make
def test_make_leaves_a_folder_alone_that_it_did_not_make(tmp_path):
    (tmp_path / "thesis.tex").write_text("\\end{document}")
    done = make("environment", f"PYTHON={sys.executable}", f"VENV={tmp_path}")
    assert done.returncode != 0
    assert f"VENV = {tmp_path}: expected a new folder" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.fixture
def environment():
    """tools/environment.py as a module."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / "tools" / "environment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend(environment, monkeypatch, works, installs=lambda command: True):
    """Let commands succeed where ``works(command)`` holds; return the list of those that were run."""
    run: list[str] = []

    def attempt(tried, *command):
        run.append(" ".join(command))
        if not works(run[-1]):
            tried.append(f"  {run[-1]}: no")
        return works(run[-1])

    def install(command, *arguments):
        run.append(" ".join([*command, *arguments]))
        return installs(run[-1])

    monkeypatch.setattr(environment, "attempt", attempt)
    monkeypatch.setattr(environment, "install", install)
    return run


@pytest.mark.parametrize(
    ("works", "expected"),
    [
        (lambda command: True, "uv pip install"),
        (lambda command: not command.startswith("uv"), "-m pip"),
        (lambda command: not command.startswith("uv") and not re.search(r"-m venv \S+$", command), "-m pip"),
        (lambda command: "virtualenv" in command or command.endswith("-m pip --version"), "-m pip"),
    ],
    ids=["uv", "venv", "without ensurepip", "virtualenv"],
)
def test_an_environment_is_made_by_whatever_there_is(environment, monkeypatch, tmp_path, works, expected):
    run = pretend(environment, monkeypatch, works)
    environment.prepare(tmp_path / "venv", "uv")
    assert expected in run[-1] and run[-1].endswith("--no-deps -e .")
    assert run[-2].endswith("-r requirements.txt")
    assert environment.json.loads((tmp_path / "venv" / environment.RECORD).read_text()) == environment.wanted()


def test_where_nothing_works_the_error_names_what_to_install(environment, monkeypatch, tmp_path):
    pretend(environment, monkeypatch, works=lambda command: False)
    with pytest.raises(environment.Failure, match="apt install python3") as caught:
        environment.prepare(tmp_path / "venv", "uv")
    assert "uv --version: no" in str(caught.value) and "virtualenv" in str(caught.value)


def test_an_install_that_fails_leaves_no_valid_record_and_the_next_one_starts_anew(environment, monkeypatch, tmp_path):
    folder = tmp_path / "venv"
    pretend(environment, monkeypatch, works=lambda command: True, installs=lambda command: "requirements" in command)
    with pytest.raises(environment.Failure, match="could not be installed"):
        environment.prepare(folder, "uv")
    assert environment.recorded(folder) == {}
    (folder / "leftover").touch()
    pretend(environment, monkeypatch, works=lambda command: True)
    environment.prepare(folder, "uv")
    assert not (folder / "leftover").exists()


def test_what_is_up_to_date_is_left_and_what_changed_is_done(environment, monkeypatch, tmp_path):
    folder = tmp_path / "venv"
    pretend(environment, monkeypatch, works=lambda command: True)
    environment.prepare(folder, "uv")
    environment.python_in(folder).parent.mkdir()
    environment.python_in(folder).touch()
    run = pretend(environment, monkeypatch, works=lambda command: True)
    environment.prepare(folder, "uv")
    assert run == []
    environment.write_record(folder, environment.wanted() | {"project": "older"})
    environment.prepare(folder, "uv")
    assert [command for command in run if "install" in command] == [run[-1]] and run[-1].endswith("--no-deps -e .")
    for changed in ("requirements", "repository", "python"):
        run.clear()
        environment.write_record(folder, environment.wanted() | {changed: "older"})
        environment.python_in(folder).parent.mkdir(exist_ok=True)
        environment.python_in(folder).touch()
        environment.prepare(folder, "uv")
        assert any(command.endswith("-r requirements.txt") for command in run), changed


@pytest.mark.soak
def test_a_wheel_has_what_the_package_needs_and_its_command(tmp_path):
    """Built and installed beside the packages of this environment; setuptools comes from the registry."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    source = tmp_path / "source"
    shutil.copytree(ROOT / "bap_jax", source / "bap_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", tmp_path, source], capture_output=True, text=True)
    if built.returncode and "setuptools" in built.stderr:
        pytest.skip(f"no registry to build with: {built.stderr[-200:]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("bap_jax-*.whl")
    with zipfile.ZipFile(wheel) as inside:
        shipped = {name for name in inside.namelist() if name.startswith("bap_jax/")}
        entry = inside.read(next(name for name in inside.namelist() if name.endswith("entry_points.txt"))).decode()
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bap_jax").rglob("*") if path.suffix not in (".pyc", "")}
    assert shipped == here, sorted(shipped ^ here)
    assert "bap = bap_jax.cli.main:main" in entry
    target = tmp_path / "installed"
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", target, wheel], check=True, capture_output=True)
    code = "import bap_jax, sys; print(bap_jax.__file__); from bap_jax.cli.main import main; main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(target)}, capture_output=True, text=True
    )
    place, versions = done.stdout.splitlines()
    assert Path(place).is_relative_to(target) and versions.startswith(f"bap_jax {PROJECT['version']} jax ")
