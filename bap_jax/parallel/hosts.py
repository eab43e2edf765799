"""Several hosts: each runs the same program, and together they train one network."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bap_jax.errors import SettingError

HEARTBEAT_SECONDS = 30  # without a sign of life for so long, a process counts as lost
BEHIND = 2  # steps that a stop is noticed late on accelerators, which are never waited for


def parse_distributed(text: str) -> tuple[str | None, int | None, int | None]:
    """The three of :func:`initialize_distributed` from ``auto`` or ``COORDINATOR:PORT,RANK,WORLD``.

    Raises:
      SettingError: it is neither.

    Example:
      >>> parse_distributed("auto"), parse_distributed("10.0.0.1:1234,1,4")
      ((None, None, None), ('10.0.0.1:1234', 4, 1))
    """
    if text == "auto":
        return None, None, None
    found = re.fullmatch(r"([^\s,]+:\d{1,5}),(\d{1,6}),(\d{1,6})", text)
    if found is None or int(found[2]) >= int(found[3]):
        expected = "auto, or COORDINATOR:PORT,RANK,WORLD with a rank below the number of processes, such as 10.0.0.1:1234,0,2"
        raise SettingError("--distributed", text, expected)
    return found[1], int(found[3]), int(found[2])


def agreed(stop: Callable[[], bool], mesh: Mesh | None) -> Callable[[], bool]:
    """A question that all processes get the same answer to: yes as soon as it is yes on any of them.

    It is a collective: all of them ask equally often. On accelerators an answer is that of two questions before, so that
    nobody waits for a step to end.

    Args:
      stop: this process's own answer.
      mesh: the devices of all processes; of one process its own answer counts.

    Example:
      >>> agreed(lambda: True, None)()
      True
    """
    if mesh is None or not mesh.is_multi_process:
        return stop
    own, every = NamedSharding(mesh, PartitionSpec(*mesh.axis_names)), NamedSharding(mesh, PartitionSpec())
    most: Any = jax.jit(lambda flags: flags.max(), out_shardings=every)
    waiting: collections.deque[jax.Array] = collections.deque()
    behind = 0 if mesh.devices.flat[0].platform == "cpu" else BEHIND

    def ask() -> bool:
        flag = np.full(1, stop(), np.int32)
        waiting.append(most(jax.make_array_from_callback((mesh.size,), own, lambda index: flag)))
        return len(waiting) > behind and bool(waiting.popleft())

    return ask


def initialize_distributed(address: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the other hosts; called only when asked for, before any device is touched.

    Args:
      address: ``host:port`` of the first process. On a TPU slice and under common cluster managers jax finds all three by itself.
      num_processes: how many processes there are.
      process_id: which of them this is, from 0.

    Raises:
      SettingError: only some of the three are given, or a process number is not below the number of processes.
      RuntimeError: jax has been used already, or the others cannot be reached.

    Example:
      >>> initialize_distributed("localhost:1234", num_processes=2)
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: process_id = None: expected a number, because the other two of the three are given
    """
    given = {"address": address, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        kind = "host:port" if missing[0] == "address" else "a number"
        others = "the other two of the three are" if len(missing) == 1 else "another of the three is"
        raise SettingError(missing[0], None, f"{kind}, because {others} given")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise SettingError("process_id", process_id, f"0 to {num_processes - 1}")
    jax.distributed.initialize(address, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def is_main_process() -> bool:
    """Whether this process is the one that writes and prints.

    Example:
      >>> is_main_process()
      True
    """
    return jax.process_index() == 0
