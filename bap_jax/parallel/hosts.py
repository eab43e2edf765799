"""Several hosts: each runs the same program, and together they train one network."""

from __future__ import annotations

import jax

from bap_jax.errors import SettingError


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
    jax.distributed.initialize(address, num_processes, process_id)


def is_main_process() -> bool:
    """Whether this process is the one that writes and prints.

    Example:
      >>> is_main_process()
      True
    """
    return jax.process_index() == 0
