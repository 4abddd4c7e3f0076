"""Accuracy against the budget as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.integration.tables.common import warning_line
from wtacrs.validation.records.budgets import BudgetsResult, Difference, Scores


def budgets_table(result: BudgetsResult) -> Table:
    """Metric and variance at every budget, and whether the difference from exact can be told from noise."""
    table = Table(
        title=f"{result.estimator}: dev {result.metric} over {len(result.seeds)} seeds, {result.dev_size:,} examples; "
        f"Var Ĝ/‖G‖², median of {result.layers} layers of the exactly trained model",
        title_justify="left",
        caption=warning_line(result.exact.values, result.majority)
        + "± standard errors, over seeds and of the dev sample; the interval joins both",
        caption_justify="left",
    )
    kinds = list(dict.fromkeys(kind for point in result.points for kind in point.variance))
    heads = ("budget", result.metric, "± seeds", "± dev", "− exact", "95 % interval", "verdict")
    for column in (*heads, *(f"Var, {kind}" for kind in kinds)):
        table.add_column(column, justify="left" if column == "verdict" else "right", no_wrap=True)
    table.add_row("exact", *_scores(result.exact), "", "", "", *("0" for _ in kinds))
    for point in result.points:
        table.add_row(
            f"{point.budget:g}",
            *_scores(point.scores),
            *_difference(point.difference),
            *(f"{point.variance[kind]:.3g}" if kind in point.variance else "–" for kind in kinds),
        )
    return table


def _scores(scores: Scores) -> tuple[str, str, str]:
    errors = (scores.seed_error, scores.dev_error)
    return f"{scores.mean:.3f}", *("–" if error is None else f"{error:.3f}" for error in errors)  # type: ignore[return-value]


def _difference(difference: Difference) -> tuple[str, str, str]:
    if difference.low is None or difference.high is None:
        return f"{difference.value:+.3f}", "–", "unknown: one seed"
    verdict = "within noise" if difference.within_noise else ("worse" if difference.value < 0 else "better")
    return f"{difference.value:+.3f}", f"{difference.low:+.3f} … {difference.high:+.3f}", verdict
