"""What commands print: results as tables or as JSON on stdout; progress and what was left out on stderr; or nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wtacrs.integration.progress import count_bar, hidden_progress

if TYPE_CHECKING:
    from wtacrs.integration.progress import Report
    from wtacrs.validation.records.base import Result


def _width(terminal: bool) -> int | None:
    """A file or a pipe has no width of its own: 80 columns would fold every table."""
    columns = os.environ.get("COLUMNS", "")
    return None if terminal else max(140, int(columns) if columns.isdigit() else 0)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`."""
        raise BrokenPipeError


console = _Console(width=_width(sys.stdout.isatty()))
"""Results; silent with --quiet and --json."""
messages = Console(stderr=True, width=_width(sys.stderr.isatty()))
"""Warnings, progress and what was left out."""
_as_json = False


@contextmanager
def output_as(*, quiet: bool = False, as_json: bool = False) -> Iterator[None]:
    """Print less, or JSON, inside the block."""
    global _as_json
    before = console.quiet, _as_json
    console.quiet, _as_json = console.quiet or quiet or as_json, _as_json or as_json
    try:
        with hidden_progress(quiet):
            yield
    finally:
        console.quiet, _as_json = before


def show(
    result: Result | Sequence[Result] | dict[str, Any] | list[dict[str, Any]],
    *,
    tables: Iterable[Table | str] | None = None,
    lines: Iterable[str] = (),
    files: Iterable[Path] = (),
) -> None:
    """Print what a command found.

    Args:
        result: one or several results, or what JSON can say of something that has no result file.
        tables: those of the result if None (`tables_of`).
        lines: sentences below the tables.
        files: that were written.
    """
    if _as_json:
        sys.stdout.write(_json(result))
        return
    if console.quiet:
        return
    for table in _tables(result) if tables is None else tables:
        if isinstance(table, str):
            console.print(table, markup=False, highlight=False)
        else:
            show_table(table)
    for line in lines:
        console.print(line, highlight=False, markup=False)
    wrote(*files)


def show_table(table: Table) -> None:
    """Print a table, in several pieces if the terminal is too narrow."""
    from wtacrs.integration.tables.folding import folded

    console.print(*folded(table, console.width), sep="\n")


def _tables(result: Any) -> Iterator[Table]:
    from wtacrs.integration.tables.kinds import tables_of

    for one in result if isinstance(result, Sequence) else (result,):
        yield from tables_of(one)


def _json(result: Any) -> str:
    from wtacrs.validation.records.base import Result
    from wtacrs.validation.records.results import result_text

    if isinstance(result, Result):
        return result_text(result)
    if isinstance(result, Sequence) and result and all(isinstance(one, Result) for one in result):
        return "[\n" + ",\n".join(result_text(one).rstrip() for one in result) + "\n]\n"
    return json.dumps(result, indent=2, ensure_ascii=False) + "\n"


def show_plan(lines: Iterable[str]) -> None:
    """Print what a dry run would do."""
    told = list(lines)
    if _as_json:
        sys.stdout.write(json.dumps({"dry_run": told}, indent=2, ensure_ascii=False) + "\n")
    for line in told:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print("dry run: inputs are usable, nothing was written", highlight=False)


def progress_bar(what: str) -> AbstractContextManager[Report]:
    """A bar on stderr."""
    return count_bar(messages, what)


def warn(text: str) -> None:
    """Print a warning in one line."""
    one_line = " ".join(text.split())
    messages.print(f"[yellow]warning[/yellow] {escape(one_line)}", highlight=False, soft_wrap=True)


def warn_skipped(layer: str, reason: str) -> None:
    """Print that a layer was left out, and why."""
    del layer
    messages.print(f"[yellow]skipped[/yellow] {escape(reason)}", highlight=False, soft_wrap=True)


def wrote(*paths: Path) -> None:
    """Print which of these files exist."""
    for path in paths:
        if path.exists():
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
