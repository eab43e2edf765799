"""The layers: who may import whom, and what the lower layers keep away from. The checks read the source; none of it is run."""

import ast
import graphlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bap_jax

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bap_jax"

VOCABULARY = {"types", "errors", "plugins", "renamed", "atomic", "inputs", "threads", "timing"}
FOUNDATION = VOCABULARY | {"mathematics"}
EDGES = {"models", "data", "checkpoint", "parallel", "export", "report"}
LOWER = FOUNDATION | {
    "attacks",
    "budgets",
    "pruners",
    "losses",
    "training",
    "structure",
    "methods",
}  # never jit, hold no global state
COMPOSITION = {"cli", "__init__", "__main__"}
MAY_IMPORT = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    "mathematics": VOCABULARY,
    "attacks": FOUNDATION,
    "budgets": FOUNDATION | {"attacks"},
    "pruners": FOUNDATION,
    "losses": FOUNDATION,
    "training": FOUNDATION,
    "structure": FOUNDATION,
    "methods": FOUNDATION | {"attacks", "budgets", "pruners", "losses", "training", "structure"},
    "evaluation": FOUNDATION | {"attacks"},
    **dict.fromkeys(EDGES, FOUNDATION),
    "runs": LOWER | EDGES | {"evaluation"},
    "sweeps": LOWER | EDGES | {"evaluation", "runs"},
    "bench": LOWER | EDGES | {"evaluation", "runs", "sweeps"},
}
# Heavy or worldly packages: files, terminals, pictures. Only edges and the command line meet them.
EDGES_ONLY = {"tensorflow_datasets", "tensorflow", "orbax", "grain", "array_record", "matplotlib", "tyro", "rich", "tensorboardX"}
EDGES_ONLY |= {"safetensors", "torch", "flatbuffers"}
DRAWS = {
    "evaluation/plot.py": {"matplotlib"}
}  # below the edges, this file alone, and nothing loads it before a picture is asked for
# Modules without a test file of their name, and the one that holds them. All others have one: bap_jax/attacks/pgd.py is held by
# tests/attacks/test_pgd.py.
HELD_BY = {
    "runs/test_benchmark": "runs/benchmark_plan runs/goals cli/commands/benchmark",
    "runs/test_zoo": "cli/commands/zoo",
    "evaluation/test_survey": "evaluation/tuned_fmn",
    "attacks/test_apgd": "attacks/_apgd_ascent attacks/_apgd_l1 attacks/apgd_targeted",
    "attacks/test_brendel_bethge": "attacks/_trust_region",
    "attacks/test_minimal_norm": "attacks/_nearest",
    "attacks/test_single_step": "attacks/n_fgsm attacks/rs_fgsm",
    "bench/test_process": "bench/step",
    "bench/test_suites": "bench/arms bench/attack bench/autoattack bench/budget bench/compiling bench/files "
    "bench/imports bench/mask",
    "mathematics/test_group_masks": "mathematics/channels",
    "structure/test_compact": "structure/_constants structure/_zeros",
    "structure/test_coupling": "structure/_channels structure/_layers structure/_program structure/picture structure/sliced",
    "bench/test_steps": "bench/result cli/commands/bench",
    "budgets/test_budgets": "budgets/_parts budgets/cutoff_scale budgets/none budgets/uniform",
    "budgets/test_fat": "attacks/friendly_pgd",
    "budgets/test_contract": "budgets/_staged",
    "checkpoint/test_damage": "checkpoint/digests checkpoint/json_file",
    "checkpoint/test_manager": "checkpoint/paths",
    "cli/test_commands": "cli/arguments cli/main cli/process cli/commands/data cli/commands/train",
    "cli/test_moved": "renamed cli/grid cli/plan cli/settings",
    "data/test_load": "data/factory",
    "evaluation/test_cascade": "evaluation/autoattack",
    "evaluation/test_evaluate": "evaluation/attacker evaluation/compiled evaluation/examples evaluation/named "
    "evaluation/plot evaluation/result evaluation/tables",
    "evaluation/test_given": "evaluation/jobs",
    "evaluation/test_mistakes": "evaluation/audit evaluation/controls",
    "evaluation/test_neighbours": "evaluation/determinism",
    "evaluation/test_optimality": "evaluation/passes",
    "evaluation/test_threats": "evaluation/bound",
    "export/test_twins": "export/normalisation export/scores",
    "losses/test_distill_hsic": "losses/distill",
    "models/test_resnet": "models/_blocks models/preact_resnet models/wide_resnet",
    "losses/test_losses": "losses/_common losses/mart losses/mix losses/trades",
    "methods/test_methods": "methods/_published methods/adversarial_finetuning methods/ap methods/bap methods/cat methods/fat "
    "methods/flying_bird "
    "methods/harp methods/hydra methods/iaat methods/li20 methods/mad methods/madry methods/mart methods/merkle methods/mma "
    "methods/nt methods/pwoa methods/radmm methods/robust_bird methods/rst methods/s2ap methods/sensitive_filters "
    "methods/trades methods/twin_rep",
    "pruners/test_score_search": "pruners/_scores pruners/edge_popup pruners/hydra",
    "report/test_distances": "report/cascades report/figures/distances",
    "report/test_measures": "report/measures/comparisons report/measures/grid report/measures/intervals report/measures/scores",
    "report/test_page": "report/build report/html",
    "report/test_report": "report/checks report/inputs report/markdown report/rows report/sentences report/style report/tables "
    "report/terminal report/write report/figures/budgets report/figures/canvas report/figures/heat_map report/figures/layers "
    "report/figures/pareto report/figures/samples report/figures/scores report/figures/security report/figures/training",
    "cli/test_config": "runs/stored",
    "runs/test_compaction": "cli/commands/compact export/program report/compactions runs/footprint runs/program",
    "runs/test_damaged_run": "cli/screen cli/commands/report runs/records",
    "runs/test_evaluate": "checkpoint/journal cli/commands/evaluate",
    "runs/test_network_file": "export/rounded runs/one_file",
    "runs/test_optimizer": "training/average",
    "runs/test_plugins": "plugins",
    "runs/test_recipe": "runs/info",
    "runs/test_report_inputs": "runs/report",
    "runs/test_fitting": "data/arrays runs/datasets runs/memory runs/training_options",
    "runs/test_restore": "runs/deployed runs/networks",
    "runs/test_phases": "runs/run training/phases",
    "runs/test_resume": "runs/loop runs/session runs/validation",
    "cli/test_output": "cli/commands/runs data/names runs/listing",
    "runs/test_weights": "cli/commands/weights export/model_card",
    "training/test_seams": "mathematics/moments training/network training/parts",
    "training/test_state": "training/_signatures",
    "sweeps/test_execute": "cli/commands/sweep sweeps/demo sweeps/file sweeps/grid sweeps/vmapped",
    "test_inputs": "types errors",
    "cli/test_errors": "runs/settings",
    "runs/test_slots": "runs/factories runs/options runs/parsing",
    "pruners/test_contract": "pruners/quantized pruners/fixed",
    "pruners/test_given_masks": "pruners/_given pruners/dense",
}
COMPILERS = {"jit", "pmap", "pjit"}
MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MAKERS = {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque"}


def layer_of(path: str) -> str:
    """bap_jax/attacks/pgd.py -> attacks; bap_jax/types.py -> types."""
    return Path(path).parts[1].removesuffix(".py")


def imported(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything that a file imports, wherever in the file, also by ``import_module("...")``."""
    package = Path(path).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = list(package[: len(package) - node.level + 1]) if node.level else []
            base = ".".join(above + ([node.module] if node.module else []))
            yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def wrong_imports(tree: ast.AST, path: str) -> Iterator[str]:
    layer = layer_of(path)
    for line, name in imported(tree, path):
        top, _, rest = name.partition(".")
        if top in EDGES_ONLY - DRAWS.get(path.removeprefix("bap_jax/"), set()) and layer not in EDGES | COMPOSITION:
            yield f"{path}:{line}: {layer} imports {top}, which only edges and the command line may"
        target = rest.partition(".")[0]
        if name == "bap_jax.__version__":  # a fact about the package, which a run folder records
            continue
        if top != "bap_jax" or layer in COMPOSITION or target == layer:
            continue
        if target not in MAY_IMPORT and target != "cli":
            yield f"{path}:{line}: {layer} imports {name}: name the layer, not the package as a whole"
        elif target not in MAY_IMPORT[layer]:
            yield f"{path}:{line}: {layer} imports {target}"


def compiles(tree: ast.AST, path: str) -> Iterator[str]:
    for node in ast.walk(tree):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.ImportFrom):
            names = [name.name for name in node.names]
        for name in COMPILERS.intersection(names):
            yield f"{path}:{node.lineno}: {name} below evaluation: the caller compiles"


def module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import: those of the module, and inside its ifs, trys, withs, loops and classes."""
    for node in body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            yield from module_level(node.orelse)
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ("body", "orelse", "finalbody"):
                yield from module_level(getattr(node, inner, []))
            for handler in getattr(node, "handlers", []):
                yield from module_level(handler.body)


def global_state(tree: ast.Module, path: str) -> Iterator[str]:
    for node in module_level(tree.body):
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if [getattr(target, "id", "") for target in targets] == ["__all__"]:
            continue
        value = node.value
        function = value.func if isinstance(value, ast.Call) else None
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if isinstance(value, MUTABLE) or called in MAKERS:
            yield f"{path}:{node.lineno}: a mutable object bound on import; use a tuple, frozenset or MappingProxyType"
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Global):
            yield f"{path}:{inner.lineno}: global {', '.join(inner.names)}"


def violations(path: str, source: str) -> list[str]:
    """Everything in one file that breaks the rules of its layer; ``path`` is relative to the repository, with slashes."""
    layer = layer_of(path)
    if layer not in MAY_IMPORT.keys() | COMPOSITION:
        return [f"{path}: belongs to no layer; put it into one, or add the layer here and to CONTRIBUTING.md"]
    tree = ast.parse(source)
    found = list(wrong_imports(tree, path))
    if layer in LOWER:
        found += [*compiles(tree, path), *global_state(tree, path)]
    return found


def test_every_file_keeps_to_its_layer():
    files = sorted(PACKAGE.rglob("*.py"))
    assert {layer_of(str(file.relative_to(ROOT))) for file in files} >= MAY_IMPORT.keys()
    found = [line for file in files for line in violations(file.relative_to(ROOT).as_posix(), file.read_text())]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("types.py", "from bap_jax.mathematics import norms"),
        ("mathematics/norms.py", "from bap_jax.attacks.pgd import pgd"),
        ("mathematics/norms.py", "from ..attacks import pgd"),
        ("mathematics/norms.py", "from .. import attacks"),
        ("attacks/pgd.py", "import bap_jax.budgets.uniform"),
        ("attacks/pgd.py", "import bap_jax as bap"),
        ("attacks/pgd.py", "from bap_jax import pgd"),
        ("budgets/uniform.py", "from bap_jax.evaluation import robust"),
        ("budgets/uniform.py", "def f():\n    from bap_jax.training import step"),
        ("pruners/magnitude.py", "from bap_jax.attacks import pgd"),
        ("training/step.py", "from bap_jax import pruners"),
        ("training/step.py", "from importlib import import_module\nimport_module('bap_jax.budgets')"),
        ("evaluation/robust.py", "from bap_jax.budgets import uniform"),
        ("evaluation/robust.py", "from bap_jax.cli import main"),
        ("evaluation/robust.py", "import matplotlib.pyplot as plt"),
        ("evaluation/robust.py", "from rich.progress import track"),
        ("training/losses.py", "from safetensors.numpy import load_file"),
        ("models/mlp.py", "from bap_jax.data import digits"),
        ("report/picture.py", "from bap_jax.attacks import pgd"),
        ("export/network.py", "from bap_jax.models import build"),
        ("export/network.py", "from bap_jax.checkpoint import Network"),
        ("data/tfds.py", "from bap_jax.cli.main import main"),
        ("training/step.py", "import tensorflow_datasets as tfds"),
        ("training/step.py", "def f():\n    import orbax.checkpoint"),
        ("training/step.py", "import jax\nstep = jax.jit(lambda x: x)"),
        (
            "training/step.py",
            "import functools, jax as j\n@functools.partial(j.pmap, axis_name='i')\ndef f(x): ...",
        ),
        ("pruners/magnitude.py", "from jax import jit as compiled"),
        ("attacks/pgd.py", "TABLE = {'linf': 1}"),
        ("attacks/pgd.py", "try:\n    seen: list = []\nexcept ImportError:\n    pass"),
        ("attacks/pgd.py", "class Attack:\n    cache = dict()"),
        ("attacks/pgd.py", "from collections import defaultdict\nCACHE = defaultdict(list)"),
        ("attacks/pgd.py", "step = 0\ndef f():\n    global step\n    step += 1"),
        ("helpers.py", "x = 1"),
        ("helpers/norms.py", "x = 1"),
    ],
)
def test_the_check_finds_what_is_wrong(path, source):
    assert len(violations(f"bap_jax/{path}", source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "from bap_jax.types import Array"),
        ("mathematics/__init__.py", "from bap_jax.mathematics.norms import norm\n__all__ = ['norm']"),
        ("mathematics/masks.py", "from .norms import norm\nfrom ..errors import SettingError\nimport jax.numpy as jnp"),
        ("budgets/cutoff_scale.py", "from bap_jax.attacks import pgd\nfrom bap_jax.types import Budget"),
        ("evaluation/robust.py", "import jax\nfrom bap_jax import attacks\nrun = jax.jit(len)\nTABLE = {}"),
        ("report/picture.py", "import matplotlib\nfrom bap_jax.report.table import rows\nCOLOURS = ['red']"),
        (
            "export/files.py",
            "import safetensors\nfrom bap_jax.mathematics import masks\nfrom ..atomic import write_atomic",
        ),
        ("cli/main.py", "import tyro, rich, bap_jax\nfrom bap_jax import budgets, data"),
        ("__init__.py", "from bap_jax.attacks import pgd"),
        ("attacks/pgd.py", "from types import MappingProxyType\nSTEPS = MappingProxyType({'a': 1})\nNORMS = ('linf', 'l2')"),
        ("attacks/pgd.py", "def f():\n    '''jax.jit(f)'''\n    rows = []\n    return rows"),
    ],
)
def test_the_check_accepts_what_is_right(path, source):
    assert violations(f"bap_jax/{path}", source) == []


def module_of(path: str) -> str:
    """bap_jax/attacks/pgd.py -> bap_jax.attacks.pgd; bap_jax/attacks/__init__.py -> bap_jax.attacks."""
    return ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Module -> the modules that have to be there before it is; of files by their paths. What a function imports is left out.

    A module of another folder brings the ``__init__`` of every folder above it; those of one's own are at work already.
    """
    modules = {module_of(path) for path in sources}
    graph: dict[str, set[str]] = {}
    for path, source in sources.items():
        own, needed = module_of(path), set()
        above = {own.rsplit(".", depth)[0] for depth in range(own.count(".") + 1)}
        for node in module_level(ast.parse(source).body):
            for _, name in imported(node, path) if isinstance(node, ast.Import | ast.ImportFrom) else ():
                found = name if name in modules else name.rpartition(".")[0]
                if found in modules:
                    folders = {found.rsplit(".", depth)[0] for depth in range(1, found.count(".") + 1)}
                    needed |= {found} | (folders & modules) - above
        graph[own] = needed - {own}
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, and the last the first; none if there is no such circle."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return []


def test_no_module_needs_itself():
    sources = {file.relative_to(ROOT).as_posix(): file.read_text() for file in PACKAGE.rglob("*.py")}
    graph = import_graph(sources)
    assert sum(map(len, graph.values())) > 500
    assert circle_in(graph) == []


@pytest.mark.parametrize(
    ("source", "circle"),
    [
        ("import a.c", True),
        ("from a import c", True),
        ("from a import thing", True),  # of the folder's own __init__, which imports this very module
        ("from .c import thing", True),
        ("try:\n    from a.c import thing\nexcept ImportError:\n    pass", True),
        ("def f():\n    import a.c", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a.c", False),
        ("import d.e", False),
    ],
)
def test_the_look_for_circles_sees_them(source, circle):
    files = {
        "a/__init__.py": "from a.b import x",
        "a/b.py": source,
        "a/c.py": "from a.b import x",
        "d/__init__.py": "",
        "d/e.py": "",
    }
    assert bool(circle_in(import_graph(files))) == circle


def without_tests(modules: list[str], tests: set[str], held_by: dict[str, str]) -> list[str]:
    """Modules (``attacks/pgd``) held neither by a test file of their name nor by another that is there; and stale entries."""
    named = {(Path(module).parent / f"test_{Path(module).name.lstrip('_')}").as_posix(): module for module in modules}
    held = {module: file for file, several in held_by.items() for module in several.split()}
    missing = [module for file, module in named.items() if file not in tests and held.get(module) not in tests]
    stale = [module for module in held if module not in modules or any(named[file] == module for file in tests & named.keys())]
    return missing + stale


def test_every_module_has_a_test_file():
    files = [file.relative_to(PACKAGE).with_suffix("").as_posix() for file in sorted(PACKAGE.rglob("*.py"))]
    modules = [file for file in files if not file.endswith(("__init__", "__main__", "_moved"))]
    tests = {file.relative_to(ROOT / "tests").with_suffix("").as_posix() for file in (ROOT / "tests").rglob("test_*.py")}
    assert without_tests(modules, tests, HELD_BY) == []
    assert without_tests(["a/_x", "a/y"], {"a/test_x", "test_z"}, {"test_z": "a/x"}) == ["a/y", "a/x"]


PROBE = """
import importlib, json, os, sys, jax
settings, variables = dict(jax.config.values), dict(os.environ)
module = importlib.import_module(sys.argv[1])
for name in sys.argv[2:]:
    getattr(module, name)  # those of the package are looked up when they are first used
changed = [name for name, value in settings.items() if jax.config.values[name] != value]
loaded = sorted({name.partition(".")[0] for name in sys.modules})
try:
    jax.config.update("jax_num_cpu_devices", 3)
    computed = False
except RuntimeError:  # refused once a device has been used
    computed = True
same = dict(os.environ) == variables
print(json.dumps({"changed": changed, "same_environment": same, "loaded": loaded, "computed": computed}))
"""


def look_at_import(module: str, folder: Path, *names: str) -> dict:
    """What importing a module and looking up names in it does to a fresh process."""
    environment = {name: value for name, value in os.environ.items() if name not in {"XLA_FLAGS", "NPROC"}}
    environment["JAX_PLATFORMS"] = "cpu"
    done = subprocess.run(
        [sys.executable, "-c", PROBE, module, *names],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_the_package_sets_nothing_and_loads_nothing_heavy():
    files = {"checkpoint", "export", "report", "load", "zoo"}  # these may load orbax and safetensors
    seen = look_at_import("bap_jax", ROOT, *(name for name in bap_jax.__all__ if name not in files))
    assert {"bap_jax", "flax", "optax"} <= set(seen["loaded"])
    heavy = {"tensorflow_datasets", "tensorflow", "orbax", "matplotlib", "grain", "tyro", "safetensors", "torch"}
    assert not heavy.intersection(seen["loaded"])
    assert seen["changed"] == []
    assert seen["same_environment"]
    assert not seen["computed"]


def test_the_look_at_an_import_sees_what_is_wrong(tmp_path):
    (tmp_path / "meddler.py").write_text(
        "import os, jax, jax.numpy as jnp, tyro\n"
        "os.environ['MEDDLED'] = '1'\njax.config.update('jax_enable_x64', True)\nONES = jnp.ones(3)\n"
    )
    seen = look_at_import("meddler", tmp_path)
    assert "tyro" in seen["loaded"]
    assert seen["changed"] == ["jax_enable_x64"]
    assert not seen["same_environment"]
    assert seen["computed"]
