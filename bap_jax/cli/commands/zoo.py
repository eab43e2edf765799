"""`bap zoo`: the networks that come with the package."""

from __future__ import annotations

from rich.table import Table

from bap_jax.cli import arguments as cli
from bap_jax.cli.screen import console, show_checks, show_pairs
from bap_jax.runs import zoo
from bap_jax.runs.trust import Trust


def run_list(command: cli.ListZoo, trust: Trust) -> int:
    """`bap zoo list`."""
    screen = console()
    table = Table(title="the zoo: bap.zoo.load(NAME)", title_justify="left")
    for column in ("name", "data", "sparsity", "clean", "robust", "bytes"):
        table.add_column(column, justify="left" if column in ("name", "data") else "right")
    for card in map(zoo.card, zoo.names()):
        attacked = [row for row in card.accuracies if row["attack"] != "clean"]
        robust = min(attacked, key=lambda row: row["epsilon"], default=None)
        told = "" if robust is None else f"{100 * robust['accuracy']:.1f} % at {robust['epsilon']:.3g}"
        table.add_row(
            card.name, card.data, f"{100 * card.sparsity:g} %", f"{100 * card.clean:.1f} %", told, f"{card.num_bytes:,}"
        )
    screen.print(table)
    screen.print("bap zoo show NAME tells how one was made and all that was measured", highlight=False)
    return 0


def run_show(command: cli.ShowZoo, trust: Trust) -> int:
    """`bap zoo show`."""
    screen = console()
    card = zoo.card(command.name)
    told = ("about", "data", "model", "method", "train", "evaluate", "step", "sha256")
    show_pairs(card.name, [(name, str(getattr(card, name))) for name in told], screen)
    table = Table(title="accuracy", title_justify="left")
    for column in ("attack", "epsilon", "accuracy", "95 % interval", "examples"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for row in card.accuracies:
        interval = f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
        name = " ".join(filter(None, (row["attack"], row["norm"])))
        table.add_row(name, f"{row['epsilon']:.4g}", f"{100 * row['accuracy']:.2f} %", interval, str(row["num_examples"]))
    screen.print(table)
    show_checks(list(card.checks), screen)
    return 0
