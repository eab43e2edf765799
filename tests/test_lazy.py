"""`import bap_jax` loads nothing; every name is there all the same, for programs, type checkers and editors."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bap_jax

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "bap_jax" / "__init__.py"


def shown_to_type_checkers() -> set[str]:
    """The names that the block under TYPE_CHECKING imports."""
    blocks = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    (block,) = [node for node in blocks if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"]
    return {name.name for node in block.body for name in node.names}


def test_type_checkers_and_programs_see_the_same_names():
    assert shown_to_type_checkers() == set(bap_jax.__all__) and bap_jax.__all__ == sorted(bap_jax.__all__)
    listed = {*bap_jax._PLACE_OF, *bap_jax._MODULES}
    assert listed <= set(bap_jax.__all__)
    assert set(dir(bap_jax)) >= {*bap_jax.__all__, "__version__"}


def test_every_name_is_what_its_block_says():
    tree = ast.parse(SOURCE.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bap_jax"):
            for name in node.names:
                names: dict = {}
                exec(f"from {node.module} import {name.name} as found", names)
                assert getattr(bap_jax, name.name) is names["found"], name.name


def test_star_import_and_unknown_names():
    names: dict = {}
    exec("from bap_jax import *", names)
    assert set(bap_jax.__all__) <= names.keys()
    with pytest.raises(AttributeError, match="module 'bap_jax' has no attribute 'pdg'"):
        bap_jax.pdg  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'pdg'"):
        exec("from bap_jax import pdg")


def test_rooms_that_are_looked_up_lazily_have_what_they_list():
    from bap_jax.sweeps.execute import run_sweep

    assert bap_jax.sweeps.run is run_sweep and callable(bap_jax.runs.fit) and bap_jax.load is bap_jax.runs.load
    for room in (bap_jax.runs, bap_jax.sweeps):
        assert [name for name in room.__all__ if not callable(getattr(room, name))] == []
        with pytest.raises(AttributeError, match="has no attribute 'pdg'"):
            room.pdg  # noqa: B018


def test_types_are_offered_to_type_checkers():
    assert (ROOT / "bap_jax" / "py.typed").is_file()


LOADED = """
import sys
before = set(sys.modules)
import bap_jax
print(sorted(set(sys.modules) - before))
import bap_jax.errors, bap_jax.threads, bap_jax.atomic
bap_jax.SettingError
print("jax" in sys.modules, "numpy" in sys.modules)
"""


def test_importing_the_package_loads_nothing_and_its_errors_no_jax():
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=dict(os.environ)
    )
    assert done.stdout.splitlines() == ["['bap_jax']", "False False"], done.stdout + done.stderr
