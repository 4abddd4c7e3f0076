"""Verdicts on the properties of an estimator as a table and in a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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


def checks_table(results: Sequence[CheckResult]) -> Table:
    """One estimator per line: the outcome, what is ruled out, what is broken or undecided."""
    table = Table()
    table.add_column("estimator", overflow="fold")
    table.add_column("outcome")
    for name in ("properties hold", "biases ruled out above", "draws", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("broken or undecided", overflow="fold")
    for result in results:
        style = _STATUS_STYLE[result.outcome]
        means = [v for v in result.verdicts if v.ruled_out is not None]
        worst = max((v.ruled_out for v in means if v.ruled_out is not None), default=None)
        failed = [f"{v.name} ({v.status})" for v in result.verdicts if v.status in ("broken", "undecided")]
        table.add_row(
            escape(result.estimator),
            f"[{style}]{result.outcome}[/{style}]",
            str(sum(v.status == "holds" for v in result.verdicts)),
            "–" if worst is None else f"{100 * worst:.2g} %",
            str(sum(v.draws or 0 for v in means)),
            "–" if result.seconds is None else f"{result.seconds:.1f}",
            escape(", ".join(failed)),
        )
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
