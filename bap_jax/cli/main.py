"""The command line: `bap train`, `evaluate`, `report`, `export`, `import`, `data`, `sweep`, `bench`, `demo`.

Only here are process-wide things set (number of CPU devices, XLA's threads), before jax makes its first device, and said on
screen. The arguments are in ``arguments.py``, what the commands do in ``commands.py``.
"""

from __future__ import annotations

import os
import sys

import tyro

from bap_jax.cli import arguments as spoken
from bap_jax.errors import CheckpointError, DataError, NonFiniteError, SettingError, one_line
from bap_jax.parallel.devices import apply_environment, environment


def main(arguments: list[str] | None = None) -> None:
    """Reads the command, runs it, and turns the errors a user can mend into one line and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = tyro.cli(spoken.Command, args=arguments, prog="bap", description=__doc__.splitlines()[0])  # type: ignore[arg-type]
    try:
        status = _run(command, arguments)
    except (SettingError, DataError, CheckpointError, OSError) as error:
        status = _say("error", str(error), 2)
    except NonFiniteError as error:
        status = _say("stopped", str(error), 3)
    except KeyboardInterrupt:
        status = _say("stopped", "interrupted", 130)
    sys.exit(status)


def _run(command, arguments: list[str]) -> int:
    from bap_jax.cli import commands
    from bap_jax.cli.trust import Trust, names_in

    if isinstance(command, (spoken.Train, spoken.Evaluate, spoken.Sweep, spoken.Demo, spoken.Bench)):
        set_up_process(None if isinstance(command, spoken.Bench) else command.devices)  # bench counts devices in other processes
    return commands.run(command, Trust(getattr(command, "trust", False), names_in(arguments)))


def set_up_process(devices: int | None) -> None:
    """Process-wide settings, made before jax makes its first device; without ``devices`` the environment's own number stays."""
    set_already = "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    variables = environment(1 if devices is None and not set_already else devices)
    apply_environment(variables)
    if devices not in (None, 1):
        print("set " + " ".join(f"{name}={value}" for name, value in variables.items()), file=sys.stderr)


def _say(kind: str, text: str, status: int) -> int:
    print(f"bap: {kind}: {one_line(text)}", file=sys.stderr)
    return status
