"""Verdicts on the claims of the theory as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.theory import TheoryResult


def theory_table(result: TheoryResult) -> Table:
    """One verdict per claim; what the numbers do not meet is named."""
    table = Table(title="What is true, and what only looks true", title_justify="left")
    table.add_column("claim", overflow="fold")
    table.add_column("verdict")
    table.add_column("requirements", overflow="fold")
    for claim in result.claims:
        style = ("green" if claim.status == "true" else "yellow") if claim.holds else "bold red"
        met = "; ".join(claim.broken) or f"{len(claim.requirements)} met"
        table.add_row(claim.title, f"[{style}]{claim.verdict}[/{style}]", met)
    return table
