"""The commands: from a parsed command line to what is computed, written and shown; a module for each, and no other loaded."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Any

from bap_jax.cli import arguments as cli
from bap_jax.cli.screen import console
from bap_jax.runs.signals import Interrupted
from bap_jax.runs.trust import NOTHING, Trust

INTERRUPTED = 130
PLACES = MappingProxyType(  # each is called as function(command, trust) and returns the exit status
    {
        cli.Train: "train:run_train",
        cli.Evaluate: "evaluate:run_evaluate",
        cli.Report: "report:run_report",
        cli.Export: "weights:run_export",
        cli.Import: "weights:run_import",
        cli.PrepareData: "data:run_prepare",
        cli.ShowData: "data:run_show",
        cli.Sweep: "sweep:run_sweep_file",
        cli.Demo: "sweep:run_demo",
        cli.Bench: "bench:run_bench",
    }
)


def run(command: Any, trust: Trust = NOTHING) -> int:
    """Runs a parsed command and returns its exit status; ``trust`` says which code stored configurations may name."""
    module, _, function = next(place for kind, place in PLACES.items() if isinstance(command, kind)).partition(":")
    try:
        return getattr(import_module(f"{__name__}.{module}"), function)(command, trust)
    except Interrupted as stopped:
        console().print(str(stopped), style="yellow", highlight=False)
        return INTERRUPTED
