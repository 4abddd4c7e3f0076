"""The numbers of the README: tables as they are printed, with the command that each comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
