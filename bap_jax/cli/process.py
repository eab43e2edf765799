"""Process-wide settings: devices and threads, before jax makes its first device."""

from __future__ import annotations

import os
import sys


def devices_of(asked: int | None) -> int | None:
    """How many devices to use: those asked for, else all accelerators (None), else one CPU device."""
    if asked is not None:
        return asked
    import jax

    return 1 if jax.default_backend() == "cpu" else None


def set_up_process(devices: int | None, conv: str | None = None) -> None:
    """Process-wide settings, made before jax makes its first device; without ``devices`` the environment's own number stays, and
    without ``conv`` what it says of convolutions.
    """
    from bap_jax.parallel.devices import apply_environment, environment

    set_already = "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    variables = environment(1 if devices is None and not set_already else devices)
    apply_environment(variables)
    if conv is not None:
        os.environ["BAP_CONV"] = conv  # read when a network is made; processes of a sweep inherit it
    if devices not in (None, 1):
        print("set " + " ".join(f"{name}={value}" for name, value in variables.items()), file=sys.stderr)
