"""A progress line on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
    with Progress(*columns, console=console, disable=not (on and console.is_terminal)) as progress:
        line = progress.add_task(title, total=None, loss="", metric="")

        def show(*, step: int, total: int, loss: float | None = None, metric: str | None = None) -> None:
            progress.update(line, completed=step, total=total)
            if loss is not None:
                progress.update(line, loss=f"loss {loss:.3f}")
            if metric is not None:
                progress.update(line, metric=metric)

        yield show
