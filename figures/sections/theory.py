"""The claims of the theory in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import theory as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Flag, Named, Section, Table
from wtacrs.validation.records.theory import TheoryResult


def section(results: Sequence[Named[TheoryResult]]) -> Section:
    """One line and one figure per claim."""
    section = Section("What is true, and what only looks true")
    for _, result in section.each(results):
        rows: list[list[Cell]] = [
            [claim.title, Flag(claim.verdict, claim.holds),
             "; ".join(claim.broken) or f"{len(claim.requirements)} met", claim.method, claim.source]
            for claim in result.claims
        ]  # fmt: skip
        section.add(Table(["claim", "verdict", "what was required of the numbers", "found by", "source"], rows))
        for claim in result.claims:
            section.draw(
                partial(figure.build, claim),
                f"{figure.heading(claim)}: {claim.title}",
                claim.statement,
                finding=partial(findings.of_claim, claim),
            )
    return section
