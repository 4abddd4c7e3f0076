"""Accuracy, variance and memory against the budget as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.integration.tables.common import warning_line
from wtacrs.validation.records.budgets import BudgetPoint, BudgetsResult, Difference, Scores
from wtacrs.validation.records.units import megabytes


def budgets_table(result: BudgetsResult) -> Table:
    """Metric, variance and bytes at every budget, and whether the difference from exact can be told from noise."""
    trained = result.exact is not None
    table = Table(title=_title(result), title_justify="left", caption=_caption(result), caption_justify="left")
    kinds = list(dict.fromkeys(kind for point in result.points for kind in point.variance))
    heads = ["budget"]
    if trained:
        heads += [result.metric, "± seeds", "± dev", "− exact", "95 % interval", "verdict"]
    heads += [f"Var, {kind}" for kind in kinds] + [f"/ batch, {kind}" for kind in kinds] + ["MB kept", "MB peak"]
    for column in heads:
        table.add_column(column, justify="left" if column == "verdict" else "right", no_wrap=True)
    exact = [*_scores(result.exact), "", "", ""] if trained else []
    table.add_row("exact", *exact, *("0" for _ in 2 * kinds), *_bytes(result))
    for point in result.points:
        runs = [*_scores(point.scores), *_difference(point.difference)] if trained else []
        ratios = [point.ratio(kind) for kind in kinds]
        table.add_row(
            f"{point.budget:g}",
            *runs,
            *(f"{point.variance[kind]:.3g}" if kind in point.variance else "–" for kind in kinds),
            *("–" if ratio is None else f"{ratio.value:.3g}" for ratio in ratios),
            *_bytes(point),
        )
    return table


def _title(result: BudgetsResult) -> str:
    if result.exact is None:
        return (
            f"{result.estimator} on {result.task}: {result.model} after {result.steps} exact steps; Var Ĝ/‖G‖², median "
            f"of {result.layers} layers, and over the minibatch's, {result.batches} batches"
        )
    return (
        f"{result.estimator}: dev {result.metric} over {len(result.seeds)} seeds, {result.dev_size:,} examples; "
        f"Var Ĝ/‖G‖², median of {result.layers} layers of the exactly trained model"
    )


def _caption(result: BudgetsResult) -> str:
    if result.exact is None:
        return "bytes of one step beside the exact one; / batch: variance over that of the minibatch"
    return (
        warning_line(result.exact.values, result.majority)
        + "± standard errors, over seeds and of the dev sample; the interval joins both; / batch: variance over that of "
        "the minibatch"
    )


def _bytes(of: BudgetsResult | BudgetPoint) -> tuple[str, str]:
    return ("–", "–") if of.memory is None else (megabytes(of.memory.kept), megabytes(of.memory.peak))


def _scores(scores: Scores | None) -> tuple[str, str, str]:
    if scores is None:
        return ("–", "–", "–")
    seed, dev = ("–" if error is None else f"{error:.3f}" for error in (scores.seed_error, scores.dev_error))
    return f"{scores.mean:.3f}", seed, dev


def _difference(difference: Difference | None) -> tuple[str, str, str]:
    if difference is None:
        return ("–", "–", "–")
    if difference.low is None or difference.high is None:
        return f"{difference.value:+.3f}", "–", "unknown: one seed"
    verdict = "within noise" if difference.within_noise else ("worse" if difference.value < 0 else "better")
    return f"{difference.value:+.3f}", f"{difference.low:+.3f} … {difference.high:+.3f}", verdict
