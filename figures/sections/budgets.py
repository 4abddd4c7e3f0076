"""Accuracy against the budget in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import budgets as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.budgets import BudgetPoint, BudgetsResult, Difference, Scores
from wtacrs.validation.statistics.equivalence import nothing_learned_warning


def section(results: Sequence[Named[BudgetsResult]]) -> Section:
    """Which budgets are within noise of exact training, the figure, and every budget as a table."""
    section = Section("Accuracy against the budget")
    for _, result in section.each(results):
        section.add(Paragraph(_sentence(result)))
        if warning := nothing_learned_warning(result.exact.values, result.majority):
            section.add(Paragraph(f"{warning[0].upper()}{warning[1:]}."))
        section.draw(
            partial(figure.build, result),
            "Accuracy and variance against the budget",
            f"Left: dev {result.metric} at the end of training, with standard errors over seeds and of the dev sample; "
            "the band is exact training. Right: variance of the estimate on the exactly trained model.",
            finding=partial(findings.of_budgets, result),
        )
        section.add(_points(result))
    return section


def _sentence(result: BudgetsResult) -> str:
    within = [f"{p.budget:g}" for p in result.points if p.difference.within_noise]
    seeds = len(result.seeds)
    told = f"{result.estimator} on {result.task}, {seeds} seed{'s' * (seeds > 1)} of {result.steps:,} steps: "
    if all(p.difference.within_noise is None for p in result.points):
        return f"{told}one seed tells no difference from noise."
    if not within:
        return f"{told}no budget is within noise of exact training."
    return f"{told}within noise of exact training at budget {', '.join(within)}."


def _points(result: BudgetsResult) -> Table:
    kinds = list(dict.fromkeys(kind for point in result.points for kind in point.variance))
    head = ["budget", result.metric, "± seeds", "± dev", "− exact", "95 % interval", "verdict"]
    head += [f"Var Ĝ / ‖G‖², {kind}" for kind in kinds]
    rows: list[list[Cell]] = [["exact", *_scores(result.exact), "", "", "", *("0" for _ in kinds)]]
    rows += [_row(point, kinds) for point in result.points]
    return Table(head, rows, numeric=[place for place in range(len(head)) if place != 6])


def _row(point: BudgetPoint, kinds: Sequence[str]) -> list[Cell]:
    variances = [number(point.variance.get(kind)) for kind in kinds]
    return [f"{point.budget:g}", *_scores(point.scores), *_difference(point.difference), *variances]


def _scores(scores: Scores) -> list[str]:
    errors = ["–" if error is None else f"{error:.3f}" for error in (scores.seed_error, scores.dev_error)]
    return [f"{scores.mean:.3f}", *errors]


def _difference(difference: Difference) -> list[str]:
    if difference.low is None or difference.high is None:
        return [f"{difference.value:+.3f}", "–", "unknown: one seed"]
    verdict = "within noise" if difference.within_noise else ("worse" if difference.value < 0 else "better")
    return [f"{difference.value:+.3f}", f"{difference.low:+.3f} … {difference.high:+.3f}", verdict]
