"""`bap data`: a data set is prepared, or described."""

from __future__ import annotations

from rich.table import Table

from bap_jax import data as data_layer
from bap_jax.cli import arguments as cli
from bap_jax.cli.output import tell
from bap_jax.cli.screen import console, progress_bar, show_notes, show_pairs
from bap_jax.runs.trust import Trust


def run_prepare(command: cli.PrepareData, trust: Trust) -> int:
    """`bap data prepare`."""
    screen = console()
    prepared = data_layer.prepare(command.name, command.data_dir)
    pairs = [(name, str(value)) for name, value in prepared._asdict().items() if name != "notes"]
    show_pairs("prepared", pairs, screen)
    tell(**prepared._asdict())
    show_notes(prepared.notes, screen)
    return 0


def run_show(command: cli.ShowData, trust: Trust) -> int:
    """`bap data show`."""
    screen = console()
    with progress_bar("reading data", None, screen) as update:
        progress = lambda done, total: update(done, "", total)  # noqa: E731
        splits = data_layer.load(command.name, data_dir=command.data_dir, progress=progress)
    table = Table(title=command.name, title_justify="left")
    for column in ("split", "examples", "image", "classes", "mean", "std"):
        table.add_column(column)
    for name, split in zip(splits._fields, splits, strict=True):
        numbers = data_layer.statistics(split)
        mean, std = (", ".join(f"{x:.5f}" for x in values) for values in (numbers.mean, numbers.std))
        shape = "×".join(map(str, split.image_shape))
        described = {"examples": len(split), "image_shape": split.image_shape, "num_classes": split.num_classes}
        tell(**{name: described | {"mean": numbers.mean, "std": numbers.std}})
        table.add_row(name, str(len(split)), shape, str(split.num_classes), mean, std)
    screen.print(table)
    return 0
