"""`bap compact`: a pruned run as a smaller dense one, and what that saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from bap_jax.cli import arguments as cli
from bap_jax.cli.screen import console, show_checks
from bap_jax.runs.compaction import compact_run
from bap_jax.runs.trust import Trust


def run_compact(command: cli.Compact, trust: Trust) -> int:
    """`bap compact`; 1 if what came out is another network."""
    screen = console()
    found = compact_run(
        command.run,
        out=command.out,
        checkpoint=command.checkpoint,
        examples=command.examples,
        epsilon=command.epsilon,
        rounds=command.rounds,
        data_dir=command.data_dir,
        trust=trust,
        told=lambda text: screen.print(text, highlight=False),
    )
    screen.print(_table(found.record))
    show_checks(found.record["checks"], screen)
    there = found.record["measured_on"]
    where = f"{there['device']}, {there['platform']}, {there['cores']} cores, load {there['load']}, jax {there['jax']}"
    screen.print(f"measured on {where}", highlight=False)
    if not found.trainable:
        text = "it takes no widths of single layers: an exported program, which cannot be trained further"
        screen.print(text, style="yellow", soft_wrap=True)
    screen.print(f"run: {found.out}", highlight=False, soft_wrap=True)
    further = f"bap train --config {found.out}/config.json --init-from {found.out} --pruner fixed --out RUN"
    screen.print(f"next: bap evaluate {found.out}{f', or {further}' if found.trainable else ''}", highlight=False, soft_wrap=True)
    return int(any(check.status == "failed" for check in found.checks))


def _table(record: Mapping[str, Any]) -> Table:
    table = Table(title="compact", title_justify="left")
    for column in ("", "before", "after", "after / before"):
        table.add_column(column, justify="right" if column else "left")
    before, after = record["before"], record["after"]
    lines = [
        ("parameters", before["num_parameters"], after["num_parameters"]),
        ("parameters not zero", before["nonzero"], after["nonzero"]),
        ("FLOPs per image", before["flops_dense"], after["flops_dense"]),
        ("bytes, dense", before["bytes_dense"], after["bytes_dense"]),
        ("bytes, without zeros", before["bytes"], after["bytes"]),
    ]
    lines += [(f"memory, batch {batch}", before["memory"][batch], after["memory"][batch]) for batch in before["memory"]]
    for name, old, new in lines:
        known = old is not None and new is not None
        table.add_row(
            name, *("?" if value is None else f"{value:,}" for value in (old, new)), f"{new / old:.3f}" if known else ""
        )
    for batch in before["seconds"]:
        seconds = (f"{1e3 * side['seconds'][batch]:.3g} ms" for side in (before, after))
        table.add_row(f"latency, batch {batch}", *seconds, _spread(after["ratio"][batch]))
        table.add_row("processor time", "", "", _spread(after["processor"][batch]))
    nominal = "?" if record["nominal"] is None else f"{record['nominal']:.2f}×"
    table.add_row("compression, nominal", nominal, "", "")
    table.add_row("compression, real", "", f"{record['real']:.2f}×", "")
    table.add_row("zeros that remain", "", f"{record['zeros']:,}", "")
    return table


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})"
