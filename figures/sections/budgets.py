"""Accuracy against the budget in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import budgets as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.budgets import BudgetPoint, BudgetsResult, Difference, Scores, budget_sentences
from wtacrs.validation.records.units import megabytes
from wtacrs.validation.statistics.equivalence import nothing_learned_warning


def section(results: Sequence[Named[BudgetsResult]]) -> Section:
    """Which budgets are within noise of exact training, the thresholds, the figure, and every budget as a table."""
    section = Section("Accuracy against the budget")
    for _, result in section.each(results):
        section.add(Paragraph(_sentence(result)))
        for sentence in budget_sentences(result):
            section.add(Paragraph(f"{sentence[0].upper()}{sentence[1:]}."))
        if result.exact is not None and (warning := nothing_learned_warning(result.exact.values, result.majority)):
            section.add(Paragraph(f"{warning[0].upper()}{warning[1:]}."))
        section.draw(
            partial(figure.build, result), "Costs of the budget", _caption(result),
            finding=partial(findings.of_budgets, result),
        )  # fmt: skip
        section.add(_points(result))
    return section


def _sentence(result: BudgetsResult) -> str:
    if result.exact is None:
        return (
            f"{result.estimator} on {result.task}, {result.model} after {result.steps:,} exact steps: "
            "variance and memory, without runs."
        )
    verdicts = {p.budget: p.difference.within_noise for p in result.points if p.difference is not None}
    within = [f"{budget:g}" for budget, found in verdicts.items() if found]
    seeds = len(result.seeds)
    told = f"{result.estimator} on {result.task}, {seeds} seed{'s' * (seeds > 1)} of {result.steps:,} steps: "
    if all(found is None for found in verdicts.values()):
        return f"{told}one seed tells no difference from noise."
    if not within:
        return f"{told}no budget is within noise of exact training."
    return f"{told}within noise of exact training at budget {', '.join(within)}."


def _caption(result: BudgetsResult) -> str:
    parts = []
    if result.exact is not None:
        last = "at the end of training" if result.average_last == 1 else f"mean of the last {result.average_last}"
        parts.append(
            f"Dev {result.metric} ({last}) minus that of exact training, with 95 % intervals; the band is where variance "
            "costs the margin."
        )
    parts.append("Variance of the estimate on the exact model, relative to the gradient.")
    if any(point.noise for point in result.points):
        parts.append("The same over the minibatch's own variance, all linear layers together.")
    if result.memory is not None:
        parts.append("Bytes of a step beside the exact one.")
    return " ".join(parts)


def _points(result: BudgetsResult) -> Table:
    kinds = list(dict.fromkeys(kind for point in result.points for kind in point.variance))
    head, text = ["budget"], []
    if result.exact is not None:
        head += [result.metric, "± seeds", "± dev", "− exact", "95 % interval", "verdict"]
        text = [len(head) - 1]
    head += [f"Var Ĝ / ‖G‖², {kind}" for kind in kinds] + [f"over the minibatch's, {kind}" for kind in kinds]
    head += ["MB kept", "MB at the peak"]
    rows: list[list[Cell]] = [["exact", *_exact(result), *("0" for _ in 2 * kinds), *_bytes(result)]]
    rows += [_row(point, kinds, trained=result.exact is not None) for point in result.points]
    return Table(head, rows, numeric=[place for place in range(len(head)) if place not in text])


def _exact(result: BudgetsResult) -> list[Cell]:
    return [] if result.exact is None else [*_scores(result.exact), "", "", ""]


def _row(point: BudgetPoint, kinds: Sequence[str], *, trained: bool) -> list[Cell]:
    told: list[Cell] = [f"{point.budget:g}"]
    if trained:
        told += [*_scores(point.scores), *_difference(point.difference)]
    told += [number(point.variance.get(kind)) for kind in kinds]
    told += [number(None if (ratio := point.ratio(kind)) is None else ratio.value) for kind in kinds]
    return [*told, *_bytes(point)]


def _bytes(of: BudgetsResult | BudgetPoint) -> list[Cell]:
    return ["–", "–"] if of.memory is None else [megabytes(of.memory.kept), megabytes(of.memory.peak)]


def _scores(scores: Scores | None) -> list[str]:
    if scores is None:
        return ["–"] * 3
    errors = ["–" if error is None else f"{error:.3f}" for error in (scores.seed_error, scores.dev_error)]
    return [f"{scores.mean:.3f}", *errors]


def _difference(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["–"] * 3
    if difference.low is None or difference.high is None:
        return [f"{difference.value:+.3f}", "–", "unknown: one seed"]
    verdict = "within noise" if difference.within_noise else ("worse" if difference.value < 0 else "better")
    return [f"{difference.value:+.3f}", f"{difference.low:+.3f} … {difference.high:+.3f}", verdict]
