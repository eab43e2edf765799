"""The first steps of a run, in processes of their own: what compiling takes, cold and from the persistent cache, and memory.

`_main` with the argument SETTINGS is such a process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from typing import Any

import jax

from bap_jax.bench.process import python_on
from bap_jax.bench.step import RAMP_STEPS, TimedStep, network, read_data
from bap_jax.runs.settings import Settings

_MARK = "first step "


def first_steps(settings: Settings) -> dict[str, dict[str, float]]:
    """Compiles the step twice, each time in a new process: with an empty cache, and with what that left in it.

    Args:
      settings: of the step; checked.

    Returns:
      Under ``cold`` and ``cached``: ``compile_seconds``, and ``peak_bytes``, the most memory that the process had (on a CPU), or
      that it took on the device.

    Raises:
      RuntimeError: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        return {name: _first_step(settings, cache) for name in ("cold", "cached")}


def _first_step(settings: Settings, cache: dict[str, str]) -> dict[str, float]:
    command = python_on("bap_jax.bench.compiling", json.dumps(settings.as_dict(), allow_nan=False))
    done = subprocess.run(command, env=os.environ | cache, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not found:
        raise RuntimeError(f"a process of this benchmark failed: {done.stderr[-2000:]}")
    return json.loads(found[0].removeprefix(_MARK))


def peak_bytes() -> float:
    """The most memory so far: of the device where it counts it, else of this process."""
    counted: dict[str, Any] = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counted:
        return float(counted["peak_bytes_in_use"])
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(kilobytes if sys.platform == "darwin" else 1024 * kilobytes)


def _main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    source = read_data(settings)
    step = TimedStep(settings, source, network(settings, source), RAMP_STEPS)
    print(_MARK + json.dumps({"compile_seconds": step.compile_seconds, "peak_bytes": peak_bytes()}, allow_nan=False), flush=True)
