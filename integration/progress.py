"""Progress on the terminal: a line of its own on stderr for training, a bar for everything that is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[str, int, int], None]
"""Called with what was just done, how many are done, and how many there are."""

_HIDDEN: ContextVar[bool] = ContextVar("hidden_progress", default=False)


@contextmanager
def hidden_progress(hidden: bool = True) -> Iterator[None]:
    """Show no progress inside the block."""
    token = _HIDDEN.set(hidden or _HIDDEN.get())
    try:
        yield
    finally:
        _HIDDEN.reset(token)


def is_progress_hidden() -> bool:
    """Whether no progress is to be shown."""
    return _HIDDEN.get()


@contextmanager
def progress_display(on: bool, title: str) -> Iterator[Callable[..., None]]:
    """Yield ``show(step=, total=, loss=None, metric=None)``; what it is not given stays as it was.

    Off, or where stderr is no terminal, nothing is shown.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]} {task.fields[metric]}", markup=False),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, disable=_HIDDEN.get() or not (on and console.is_terminal)
    ) as progress:
        line = progress.add_task(title, total=None, loss="", metric="")

        def show(*, step: int, total: int, loss: float | None = None, metric: str | None = None) -> None:
            progress.update(line, completed=step, total=total)
            if loss is not None:
                progress.update(line, loss=f"loss {loss:.3f}")
            if metric is not None:
                progress.update(line, metric=metric)

        yield show


@contextmanager
def count_bar(console: Console, what: str) -> Iterator[Report]:
    """A bar on the terminal; yields a function of (what was done, how many, of how many)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=_HIDDEN.get() or not console.is_terminal
    ) as bar:
        row = bar.add_task(what, total=None, note="")
        yield lambda note, done, total: bar.update(row, total=total, completed=done, note=note)
