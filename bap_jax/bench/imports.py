"""What it takes to begin: importing the package and asking for help, each in processes of their own, against importing jax."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from bap_jax.bench.arms import Measured, Pair, Told, measured
from bap_jax.bench.process import package_root
from bap_jax.runs.settings import Settings
from bap_jax.timing import Sample, Timed, sample

LIBRARY, JAX, BARE, HELP, TYRO = "import bap_jax", "import jax", "python", "bap --help", "import tyro"
STATEMENTS = {
    BARE: "",
    JAX: "import jax",
    LIBRARY: "import bap_jax as bap; bap.pgd, bap.make_train_step, bap.budgets.cutoff_scale, bap.models.build",
    TYRO: "import tyro",
    HELP: "import sys; sys.argv = ['bap', '--help']; from bap_jax.cli.main import main; main()",
}


def time_imports(settings: Settings, *, rounds: int, progress: Told) -> Measured:
    """Times how long processes take.

    Args:
      settings: for the record alone.
      rounds: how often each process is started.
      progress: told of the rounds done.

    Raises:
      RuntimeError: a process failed.
    """
    arms = {name: _process(statement) for name, statement in STATEMENTS.items()}
    for run in arms.values():
        run()  # files are in the cache of the disk from here on
    pairs = [
        Pair(f"{LIBRARY} and its parts / {JAX}", LIBRARY, JAX),
        Pair(f"{HELP} / {TYRO}", HELP, TYRO),
        Pair(f"{JAX} / {BARE}", JAX, BARE),
    ]
    return measured("import", settings, arms, pairs, rounds=rounds, progress=progress)


def _process(statement: str) -> Timed:
    command = [sys.executable, "-c", statement]
    paths = [package_root(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}

    def run() -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"a process of this benchmark failed: {done.stderr[-2000:]}")

    def take() -> Sample:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall = sample(run).wall
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Sample(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    return take
