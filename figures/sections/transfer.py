"""Whether the order of estimators holds on another model, in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

from wtacrs.figures.plots import transfer as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Code, Details, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.transfer import TransferResult


def section(results: Sequence[Named[TransferResult]]) -> Section:
    """The worst regret in a sentence, a figure for every two models, and the pairs as a table."""
    section = Section("From one model to another")
    for _, result in section.each(results):
        if result.pairs:
            section.add(Paragraph(_sentence(result)))
        for one, other in combinations(result.models, 2):
            section.draw(
                partial(figure.build, result, files=(one, other)),
                f"Variance on {one} and on {other}",
                "A mark is an estimator, its place the median over layers of Var Ĝ / ‖G‖² on either model. Where the "
                "marks rise from left to right the order is kept; a ring is the best on one of the two.",
                finding=partial(findings.of_transfer, result, one, other),
            )
        section.add(_pairs(result), Details("All variances", [_standings(result)]))
    return section


def _sentence(result: TransferResult) -> str:
    worst = max(result.pairs, key=lambda pair: pair.regret)
    return (
        f"At worst the best estimator on {worst.source}, {worst.chosen}, has {worst.regret:.2f}× the variance of the "
        f"best on {worst.target}, {worst.best} (budget {worst.budget:g}, scores: {worst.scores})."
    )


def _pairs(result: TransferResult) -> Table:
    head = ["scores", "budget", "from", "to", "Kendall's τ", "best on the first", "best on the second", "regret"]
    rows: list[list[Cell]] = [
        [p.scores, f"{p.budget:g}", p.source, p.target, "–" if p.tau is None else f"{p.tau:+.2f}", Code(p.chosen),
         Code(p.best), f"{p.regret:.2f}×"]
        for p in result.pairs
    ]  # fmt: skip
    return Table(head, rows, numeric=(1, 4, 7))


def _standings(result: TransferResult) -> Table:
    head = ["file", "model", "scores", "budget", "estimator", "layers", "Var Ĝ / ‖G‖², median"]
    rows: list[list[Cell]] = [
        [s.file, result.models.get(s.file, "–"), s.scores, f"{s.budget:g}", Code(s.estimator), f"{s.layers}",
         number(s.variance)]
        for s in result.standings
    ]  # fmt: skip
    return Table(head, rows, numeric=(3, 5, 6))
