"""One step of `bap bench` in a process of its own, because the number of CPU devices is fixed for a process's life.

`_main` with the arguments DEVICES SETTINGS builds the step, then takes one sample per line that it reads.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import subprocess
import sys
from typing import Any

from bap_jax.parallel.devices import apply_environment, environment
from bap_jax.timing import Sample

_DEVICE_COUNT = re.compile(r"--xla_force_host_platform_device_count=\d+")
_MARK = "sample "


class Stalled(RuntimeError):
    """No answer in time."""


class StepProcess:
    """A train step on some CPU devices, timed by another process when asked for.

    Args:
      devices: how many CPU devices share the batch.
      settings: plain values, as :meth:`bap_jax.runs.settings.Settings.as_dict` gives them.
      seconds: how long to wait for an answer before the process is ended and :class:`Stalled` raised.
    """

    def __init__(self, devices: int, settings: dict[str, Any], seconds: float = 300.0):
        self.devices, self.seconds, self._reader = devices, seconds, concurrent.futures.ThreadPoolExecutor(1)
        command = python_on("bap_jax.bench.process", str(devices), json.dumps(settings, allow_nan=False))
        self.process = subprocess.Popen(command, env=clean(os.environ), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def time(self) -> Sample:
        """Seconds per step.

        Raises:
          Stalled: no answer in time, or the process has ended.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            line = self._reader.submit(self._answer).result(self.seconds)
        except (concurrent.futures.TimeoutError, BrokenPipeError):
            line = ""
        if not line:
            self.close()
            raise Stalled(f"the step on {self.devices} CPU devices gave no answer within {self.seconds:g} s")
        return Sample(**json.loads(line.removeprefix(_MARK)))

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return next((line for line in self.process.stdout if line.startswith(_MARK)), "")

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self._reader.shutdown()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> StepProcess:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def python_on(module: str, *arguments: str) -> list[str]:
    """The command that runs ``_main`` of a module of this package; ``-m`` would look for modules in the current folder first.

    Example:
      >>> python_on("bap_jax.bench.process", "2")[-1]
      '2'
    """
    root = package_root()
    start = f"import sys; sys.path.insert(0, {root!r}); import bap_jax; del sys.path[0]; from {module} import _main; _main()"
    return [sys.executable, "-P", "-c", start, *arguments]


def package_root() -> str:
    """The folder that this package lies in."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def clean(current) -> dict[str, str]:
    """The environment without what decides the number of CPU devices, and on the CPU.

    Example:
      >>> clean({"XLA_FLAGS": "--xla_force_host_platform_device_count=8 --a=1", "NPROC": "8", "HOME": "/"})
      {'XLA_FLAGS': '--a=1', 'HOME': '/', 'JAX_PLATFORMS': 'cpu'}
    """
    kept = {name: value for name, value in current.items() if name not in ("NPROC", "JAX_NUM_CPU_DEVICES", "JAX_PLATFORMS")}
    if "XLA_FLAGS" in kept:
        kept["XLA_FLAGS"] = _DEVICE_COUNT.sub("", kept["XLA_FLAGS"]).strip()
    return kept | {"JAX_PLATFORMS": "cpu"}


def _main() -> None:
    devices, settings = int(sys.argv[1]), json.loads(sys.argv[2])
    apply_environment(environment(devices, "cpu"))
    from bap_jax.bench.step import RAMP_STEPS, TimedStep, network, read_data
    from bap_jax.parallel import data_mesh
    from bap_jax.runs.settings import Settings

    chosen = Settings(**settings)
    source = read_data(chosen)
    mesh = data_mesh(devices) if devices > 1 else None
    step = TimedStep(chosen, source, network(chosen, source), RAMP_STEPS, mesh)
    for _ in sys.stdin:
        print(_MARK + json.dumps(step.time()._asdict(), allow_nan=False), flush=True)
