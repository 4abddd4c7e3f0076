"""The numbers of the README: tables as they are printed, with the command that each comes from.

A kind of result that the installed package does not know: record, section and table are registered from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.table import Table as TerminalTable

from wtacrs.figures.kinds import View, register_view
from wtacrs.figures.sections.blocks import Heading, Named, Paragraph, Section, Table
from wtacrs.integration.tables.kinds import register_table
from wtacrs.validation.records.base import Record, Result, register_result


class NumberTable(Record):
    """One table: its name in the README, the commands behind it, the head, and the rows as text."""

    name: str
    commands: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@register_result
class NumbersResult(Result):
    """All tables of measured numbers."""

    kind: Literal["numbers"] = "numbers"
    tables: Sequence[NumberTable]


def section(results: Sequence[Named[NumbersResult]]) -> Section:
    """Every table under its name, with the commands that measured it."""
    section = Section("Numbers of the README")
    for _, result in section.each(results):
        for table in result.tables:
            section.add(
                Heading(table.name),
                Paragraph(f"Measured by {'; '.join(table.commands)}.", soft=True),
                Table(table.head, table.rows, numeric=range(1, len(table.head))),
            )
    return section


def numbers_tables(result: NumbersResult) -> list[TerminalTable]:
    """The tables for the terminal."""
    found = []
    for table in result.tables:
        shown = TerminalTable(*table.head, title=table.name, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        found.append(shown)
    return found


register_view("numbers", View(section, no_figure="its tables are the result"))
register_table("numbers", numbers_tables)
