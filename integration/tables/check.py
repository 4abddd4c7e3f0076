"""Verdicts on the properties of an estimator as a table and in a line."""

from __future__ import annotations

from collections import Counter

from rich.markup import escape
from rich.table import Table

from wtacrs.validation.records.check import CheckResult

_STATUS_STYLE = {"pass": "green", "fail": "bold red", "expected failure": "yellow", "not applicable": "dim"}


def check_table(result: CheckResult) -> Table:
    """One verdict per property."""
    table = Table(title=escape(result.estimator), title_justify="left")
    table.add_column("property")
    table.add_column("verdict")
    table.add_column("what was found", overflow="fold")
    for verdict in result.verdicts:
        style = _STATUS_STYLE[verdict.status]
        table.add_row(verdict.name, f"[{style}]{verdict.status}[/{style}]", escape(verdict.detail))
    return table


def check_summary(result: CheckResult) -> str:
    """One line: how many properties hold, and which are broken."""
    counts = Counter(verdict.status for verdict in result.verdicts)
    broken = [verdict.name for verdict in result.verdicts if verdict.status == "fail"]
    told = f"{result.estimator}: {counts['pass']} properties hold, {counts['not applicable']} do not apply"
    return f"{told}; broken: {', '.join(broken)}" if broken else told
