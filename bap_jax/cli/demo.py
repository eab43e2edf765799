"""`bap demo`: the main job on the embedded digits, from nothing to a report."""

from __future__ import annotations

from bap_jax import report as report_layer
from bap_jax.cli.arguments import Demo
from bap_jax.cli.commands import write_runs_report
from bap_jax.cli.grid import expand, run_grid
from bap_jax.cli.plan import AttackPlan
from bap_jax.cli.reporting import checks_of, rows_of
from bap_jax.cli.screen import console, progress_bar, show_checks
from bap_jax.cli.settings import Settings
from bap_jax.errors import SettingError

BASE = Settings(data="digits", model="mlp", batch_size=64, epochs=60, scope="global", log_every=20, validations=2)
ARMS = (
    {"budget": "none"},
    {"budget": "uniform", "epsilon": "0.2"},
    {"budget": "uniform", "epsilon": "0.3"},
    {"budget": "uniform", "epsilon": "0.4"},
    {"budget": "cutoff-scale"},
)
SPARSITIES = (0.8, 0.9, 0.97)
FAST, SLOW = 0.2, 0.8  # ramp ends
EPSILONS = "0,0.05,0.1,0.15,0.2,0.25,0.3,0.4"
PLAN = AttackPlan(attack="pgd", norm="linf", epsilon=EPSILONS, steps=20)


def demo(command: Demo) -> int:
    """Trains and evaluates the arms, prints the table and writes the report."""
    if command.seeds < 1:
        raise SettingError("--seeds", command.seeds, "a whole number of at least 1")
    screen = console()
    cells = expand(BASE, ARMS, sparsities=SPARSITIES, ramp_ends=(FAST, SLOW), seeds=range(command.seeds))
    with progress_bar("cells", len(cells), screen) as update:
        records = run_grid(
            cells, [PLAN], command.out / "cells", devices=command.devices or 1, told=lambda done, total, name: update(done, name)
        )
    paths = write_runs_report(records, command.out, title="Blind adversarial pruning on digits")
    report_layer.print_report(rows_of(records), screen)
    show_checks(checks_of(records), screen)
    screen.print(f"report: {paths['report.html']}", highlight=False)
    return 0
