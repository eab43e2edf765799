"""A worker answers lines of JSON with lines of JSON, so that two environments take turns on one machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def serve(operations: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers requests {"op": name, ...} until standard input ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = operations[request.pop("op")](**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class WorkerError(RuntimeError):
    """A worker could not do what it was asked for, or died."""


class Worker:
    """The other end of :func:`serve`. It sleeps while nobody asks."""

    def __init__(self, python: str, module: str, cores: Sequence[int], log: Path) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(len(cores)),
            "MKL_NUM_THREADS": str(len(cores)),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(len(cores)),
            "NPROC": "8",  # XLA's thread pool must be wider than the devices are many
        }
        environment.pop("XLA_FLAGS", None)

        self.name = module
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [python, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment,
                text=True,
            )
        if hasattr(os, "sched_setaffinity"):  # at once: the threads that it starts later inherit it
            os.sched_setaffinity(self._process.pid, cores)

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self.name} died; its last words are in its log")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the worker."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
