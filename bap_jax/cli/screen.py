"""What a person sees while a command works and when it is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bap_jax.cli.output import output
from bap_jax.errors import one_line


class Update(Protocol):
    """Tells a progress bar how far a task has come."""

    def __call__(self, done: float, now: str, total: int | None = None) -> None: ...


def console(*, quiet: bool = False) -> Console:
    """Where results go: standard output, at its own width; nowhere if ``quiet``, as of all hosts but the first.

    Text is shown as it is: a run called ``run[seed=1]`` or ``:fire:`` is neither markup nor a picture. Colour is a ``style``.
    """
    return Console(markup=False, emoji=False, quiet=quiet)


@contextlib.contextmanager
def progress_bar(task: str, total: int | None, screen: Console) -> Iterator[Update]:
    """A bar with the time left; the context gives ``update(done, what is being done, total)``, the total being known by then.

    Where output is no terminal, a line now and then instead.
    """
    if output().quiet:
        yield lambda done, now, total=None: None
        return
    if not screen.is_terminal:
        yield _lines(task, total, screen)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with _TwoLines(*columns, console=screen, transient=True, expand=screen.width <= 80) as bar:
        number = bar.add_task(task, total=total, now="")

        def update(done: float, now: str, total: int | None = None) -> None:
            bar.update(number, completed=done, now=now, total=total)  # None leaves the total as it is

        yield update


class _TwoLines(Progress):
    """A bar, and below it what is being done: 80 columns hold both, whole."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["now"]:
                yield Text("  " + task.fields["now"], no_wrap=True, overflow="ellipsis")


def _lines(task: str, total: int | None, screen: Console) -> Update:
    whole, first, began = total, 0.0, 0.0
    last = time.monotonic()

    def update(done: float, now: str, total: int | None = None) -> None:
        nonlocal last, first, began
        total, clock = total or whole, time.monotonic()
        if not began:  # what came before the first call, compiling for instance, says nothing about the time left
            first, began = done, clock
        if clock - last < 10 and done != total:
            return
        last = clock
        rate = (done - first) / max(clock - began, 1e-9)
        left = f", about {(total - done) / rate:.0f} s left" if total and rate > 0 and done < total else ""
        screen.print(f"{task}: {done:g}{f' of {total}' if total else ''}{left}  {now}", highlight=False, soft_wrap=True)

    return update


def show_pairs(title: str, pairs: Sequence[tuple[str, str]], screen: Console) -> None:
    """A table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in pairs:
        table.add_row(name, value)
    screen.print(table)


def show_notes(notes: Sequence[str], screen: Console) -> None:
    """Remarks, a line each, as they are: names of files may hold brackets and escape codes."""
    for note in notes:
        screen.print(f"note: {one_line(note)}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def show_checks(checks: Sequence[dict], screen: Console) -> None:
    """The checks of an evaluation, the bad ones with what to do."""
    counts = {status: sum(check["status"] == status for check in checks) for status in ("passed", "warned", "failed")}
    screen.print("checks: " + ", ".join(f"{count} {status}" for status, count in counts.items()), highlight=False)
    for check in checks:
        if check["status"] != "passed":
            screen.print(f"  {check['status']}: {check['name']}: {check['value']}. {check['advice']}", highlight=False)
