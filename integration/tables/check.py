"""Verdicts on the properties of an estimator as a table and in a line."""

from __future__ import annotations

from collections import Counter

from rich.markup import escape
from rich.table import Table

from wtacrs.validation.records.check import CheckResult

_STATUS_STYLE = {
    "holds": "green",
    "broken": "bold red",
    "undecided": "bold yellow",
    "expected failure": "yellow",
    "not applicable": "dim",
}


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
    """One line: how many properties hold, which biases are ruled out, and what is broken or undecided."""
    counts = Counter(verdict.status for verdict in result.verdicts)
    told = f"{result.estimator}: {counts['holds']} properties hold, {counts['not applicable']} do not apply"
    ruled_out = [v.ruled_out for v in result.verdicts if v.status == "holds" and v.ruled_out is not None]
    if ruled_out:
        told += f"; biases above {100 * max(ruled_out):.2g} % ruled out by those about the mean"
    for status in ("broken", "undecided"):
        names = [verdict.name for verdict in result.verdicts if verdict.status == status]
        told += f"; {status}: {', '.join(names)}" if names else ""
    return told
