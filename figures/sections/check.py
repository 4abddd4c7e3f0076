"""Verdicts on the properties of estimators in the report."""

from __future__ import annotations

from collections.abc import Sequence

from wtacrs.figures.sections.blocks import Cell, Code, Details, Flag, Named, Paragraph, Section, Table
from wtacrs.validation.records.check import CheckResult

_STATES = ("holds", "broken", "undecided", "expected failure", "not applicable")


def section(results: Sequence[Named[CheckResult]]) -> Section:
    """One line per estimator, every property folded away."""
    section = Section("Properties")
    section.add(
        Paragraph(
            "Every estimator is held to the properties that its traits promise; an expected failure was declared "
            "beforehand, with its reason."
        )
    )
    rows: list[list[Cell]] = []
    for file, result in results:
        counts = [str(sum(v.status == state for v in result.verdicts)) for state in _STATES]
        rows.append([Code(result.estimator), _verdict(result.outcome), *counts, Code(file)])
    section.add(Table(["estimator", "verdict", *_STATES, "file"], rows, numeric=range(2, 7)))
    for file, result in results:
        verdicts: list[list[Cell]] = [[v.name, _verdict(v.status), v.detail] for v in result.verdicts]
        section.add(Details(f"{result.estimator} ({file})", [Table(["property", "status", "detail"], verdicts)]))
    return section


def _verdict(status: str) -> Cell:
    if status == "holds":
        return Flag("✓ holds", good=True)
    return Flag("✗ broken", good=False) if status == "broken" else status
