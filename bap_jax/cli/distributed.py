"""`bap train --distributed`: a process that joins the others, and one beside it that says what became of it.

Where another host is lost, the runtime that waits for it ends the process at once, with nothing that a person can read. So the
command line only watches: it starts itself again as a child that does the work, passes signals on to it, and says in a line
why it ended.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence

from bap_jax.cli.process import set_up_process

CHILD = "BAP_DISTRIBUTED_CHILD"
LOST = 4  # the exit status of a run that lost another process
RESUME = "--resume goes on from the last checkpoint, on as many processes as there are then"


def is_parent(arguments: Sequence[str]) -> bool:
    """Whether a command line is one to watch over.

    Example:
      >>> is_parent(["train", "--distributed", "auto"]), is_parent(["train"]), is_parent(["train", "--distributed=auto", "-h"])
      (True, False, False)
    """
    asks = any(word.partition("=")[0] == "--distributed" for word in arguments)
    return list(arguments[:1]) == ["train"] and asks and not {"-h", "--help"} & {*arguments} and not is_child()


def is_child() -> bool:
    """Whether this process does the work that another one watches over."""
    return CHILD in os.environ


def watch(arguments: Sequence[str]) -> int:
    """Starts the child, passes SIGINT and SIGTERM on to it, and returns the exit status, having said what it means."""
    # a session of its own: what is typed at the terminal comes here, once
    command = [sys.executable, "-m", "bap_jax", *arguments]
    child = subprocess.Popen(command, env=os.environ | {CHILD: "1"}, stdin=subprocess.PIPE, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: child.send_signal(number))
    status = child.wait()
    if status in (-signal.SIGABRT, LOST):
        print(f"bap: error: another process of this run was lost, so that this one ended; {RESUME}", file=sys.stderr)
        return LOST
    if status < 0:
        name = signal.Signals(-status).name
        print(f"bap: error: this process of the run was ended by {name}; {RESUME}", file=sys.stderr)
        return 128 - status
    return status


def join(told: str, devices: int | None, conv: str | None = None) -> None:
    """Joins the other processes, before jax touches a device.

    Args:
      told: see :func:`bap_jax.parallel.parse_distributed`.
      devices: CPU devices of this process, one by default; on accelerators all are used.
      conv: how convolutions are computed, as ``--conv`` says it.

    Raises:
      SettingError: ``told`` is nothing that can be joined, or nobody is found by ``auto``.
    """
    from bap_jax.parallel.hosts import initialize_distributed, parse_distributed

    address, processes, rank = parse_distributed(told)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_up_process(devices, conv)
    initialize_distributed(address, processes, rank)


def _end_with_parent() -> None:
    """A child whose parent was killed is not to go on unseen: the pipe from it ends."""
    os.read(0, 1)  # not through sys.stdin, whose lock the interpreter wants at its end
    os.kill(os.getpid(), signal.SIGKILL)


def failed(error: Exception) -> int:
    """The exit status for what the runtime raises where another process is gone; anything else is shown in full."""
    from jax.errors import JaxRuntimeError

    if isinstance(error, JaxRuntimeError) or re.match(r"[A-Z_]{5,}: ", str(error)):  # a status; jax wraps some as ValueError
        print(f"bap: the runtime says: {str(error).splitlines()[0][:300]}", file=sys.stderr)
        return LOST
    traceback.print_exc()
    return 1


def leave(status: int) -> None:
    """Ends at once. An orderly end would wait for the others, who wait for this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
