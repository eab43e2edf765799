"""Running the command line in this process, and looking at what a run left behind."""

import json
import os
import sys
from pathlib import Path

import jax
import numpy as np
import plugins_for_tests
import pytest

from bap_jax.checkpoint import Checkpoints, read_metrics
from bap_jax.cli.main import main

HERE = Path(__file__).parent


@pytest.fixture
def plugins():
    """The module of small factories, which a command names by its name."""
    return plugins_for_tests


@pytest.fixture
def bap(capsys):
    """Runs ``bap ARGUMENTS`` here; returns (exit status, standard output, standard error)."""

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        output, error = capsys.readouterr()
        return ended.value.code, output, error

    return run


@pytest.fixture
def refused(bap):
    """Runs a command that has to be refused with one line; returns that line."""

    def run(*arguments, status: int = 2) -> str:
        code, _, error = bap(*arguments)
        assert code == status, error
        lines = [line for line in error.splitlines() if not line.startswith("set ") and "old names go" not in line]
        assert len(lines) == 1 and lines[0].startswith("bap: "), error
        return lines[0]

    return run


class Left:
    """What a run left behind, in a form that two runs can be compared in."""

    def __init__(self, folder: Path):
        self.metrics = [{k: v for k, v in line.items() if "time" not in k and "peak" not in k} for line in read_metrics(folder)]
        self.config = json.loads((folder / "config.json").read_text())
        with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
            self.latest, self.best = checkpoints.latest_step(), checkpoints.best_step()
            self.best_metric = checkpoints.metadata(self.best)["metric"]
            self.finished = checkpoints.metadata(self.latest)["finished"]
            self.network = checkpoints.restore_network(self.latest)
            self.best_network = checkpoints.restore_network(self.best)
            self.state = _leaves(checkpoints, self.latest)

    def same_as(self, other: "Left") -> None:
        assert (self.latest, self.best, self.best_metric) == (other.latest, other.best, other.best_metric)
        assert self.metrics == other.metrics
        assert self.state.keys() == other.state.keys()
        for path, leaf in self.state.items():
            assert leaf.tobytes() == other.state[path].tobytes(), f"{path} differs"
        for mine, theirs in ((self.network, other.network), (self.best_network, other.best_network)):
            assert jax.tree.structure(mine) == jax.tree.structure(theirs)
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
                assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _leaves(checkpoints: Checkpoints, step: int) -> dict[str, np.ndarray]:
    """Every leaf of a saved state by path, keys as their data."""
    import orbax.checkpoint as ocp

    stored = dict(checkpoints._orbax.item_metadata(step))["state"].tree
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored)
    tree = checkpoints._orbax.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]

    def plain(leaf):
        is_key = isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): plain(leaf) for path, leaf in found}


@pytest.fixture
def left():
    """What a run left behind."""
    return Left


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Variables for a subprocess: this process's own, package and plug-ins importable, nothing compiled twice."""
    paths = [str(HERE), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return os.environ | cache | {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def python():
    return sys.executable
