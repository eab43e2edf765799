"""`bap demo`: the main job on the embedded digits, from nothing to a report."""

from __future__ import annotations

from bap_jax.cli.arguments import Demo
from bap_jax.cli.screen import console
from bap_jax.cli.sweeping import carry_out
from bap_jax.sweeps.demo import SWEEP
from bap_jax.sweeps.grid import with_seeds


def demo(command: Demo) -> int:
    """Trains and evaluates the arms, prints the table and writes the report; 1 if a cell failed."""
    swept = carry_out(with_seeds(SWEEP, command.seeds), command.out, devices=command.devices or 1, screen=console())
    return 1 if swept.failed else 0
