"""Process-wide settings, made before jax touches its first device. Nothing here imports jax."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from bap_jax.errors import SettingError
from bap_jax.threads import cores, threads_for

_FLAG = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


def environment(
    devices: int | None = None, platform: str | None = None, current: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Environment variables that make jax see the devices asked for.

    On a CPU one device per core is the fast way to train. ``NPROC`` widens XLA's thread pool with them: with as many threads as
    devices, a step with several independent all-reduces can wait for itself for ever. One device needs none of this.

    Args:
      devices: how many CPU devices, ``None`` for one per core; on another platform all devices are seen, and it has to be
        ``None``.
      platform: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"gpu"`` or ``"tpu"``; ``None`` leaves the choice to jax, and the CPU devices
        count only where jax finds no accelerator.
      current: the environment as it is. What it says already stays, and is left out of the answer.

    Returns:
      The variables to set before the first ``import jax`` (or with :func:`apply_environment`), and to tell the user about.

    Raises:
      SettingError: ``devices`` is below 1, contradicts ``current``, or is given for a platform other than the CPU.

    Example:
      >>> environment(2, "cpu", current={})
      {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '2', 'NPROC': '8'}
      >>> environment(1, "cpu", current={})
      {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'}
    """
    if devices is not None and devices < 1:
        raise SettingError("devices", devices, "at least 1")
    wanted = {} if platform is None else {"JAX_PLATFORMS": platform}
    if platform not in (None, "cpu"):
        if devices is not None:
            raise SettingError("devices", devices, f"None on {platform}, where all devices are used")
    else:
        wanted |= _cpu_devices(devices, current)
    return {name: value for name, value in wanted.items() if name not in current}


def apply_environment(variables: Mapping[str, str]) -> None:
    """Make the settings of :func:`environment` in this process, whether jax is imported already or not.

    jax reads its variables when it is imported, so an imported jax is told by its configuration as well; XLA reads ``NPROC`` when
    it makes its devices. For the command line only: a library leaves such settings to its caller.

    Args:
      variables: from :func:`environment`.

    Raises:
      RuntimeError: jax has its devices already (raised by jax itself, for a number of devices).

    Example:
      >>> apply_environment({})
    """
    os.environ.update(variables)
    if "jax" not in sys.modules:
        return
    config = sys.modules["jax"].config
    if "JAX_NUM_CPU_DEVICES" in variables:
        config.update("jax_num_cpu_devices", int(variables["JAX_NUM_CPU_DEVICES"]))
    if "JAX_PLATFORMS" in variables:
        config.update("jax_platforms", variables["JAX_PLATFORMS"])


def _cpu_devices(devices: int | None, current: Mapping[str, str]) -> dict[str, str]:
    already = _already(current)
    if None not in (already, devices) and already != devices:
        raise SettingError("devices", devices, f"{already}, the number of CPU devices that the environment asks for")
    count = already or devices or cores()
    wanted = {} if already else {"JAX_NUM_CPU_DEVICES": str(count)}
    return wanted | ({"NPROC": str(threads_for(count))} if count > 1 else {})


def _already(current: Mapping[str, str]) -> int | None:
    """How many CPU devices the environment asks for, by the variable or by the older flag."""
    flags = _FLAG.findall(current.get("XLA_FLAGS", ""))
    count = current.get("JAX_NUM_CPU_DEVICES", flags[-1] if flags else None)
    return int(count) if count and int(count) > 0 else None
