"""Results of the studies of training as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median, stdev

from rich.table import Table

from wtacrs.integration.tables.common import warning_of
from wtacrs.validation.records.budgets import BudgetsResult, Difference, Scores
from wtacrs.validation.records.norms import NormPoint, NormsResult
from wtacrs.validation.records.transfer import TransferResult


def norms_table(result: NormsResult) -> Table:
    """What training used beside the exact gradient of the same steps, in quarters of the training.

    The last column is the mean over steps of ‖Ĝ‖² over the ‖G‖² + Var that theory expects, and its standard error: near
    1 if theory holds.
    """
    table = Table(title=f"{result.estimator} for the dW of {result.layer}", title_justify="left")
    for column in ("steps", "‖Ĝ‖", "‖G‖", "‖G‖, exact run", "‖Ĝ‖/‖G‖", "expected", "‖Ĝ‖²/expected²"):
        table.add_column(column, justify="right", no_wrap=True)
    count = len(result.estimated)
    for first, last in _quarters(count):
        points, beside = result.estimated[first:last], result.exact[first:last]
        moving = [p for p in points if p.exact > 0]
        known = [p for p in moving if p.expected is not None]
        table.add_row(
            f"{first + 1} – {last}",
            f"{median(p.used for p in points):.3g}",
            f"{median(p.exact for p in points):.3g}",
            f"{median(p.exact for p in beside):.3g}" if beside else "–",
            _typical([p.used / p.exact for p in moving]),
            _typical([(p.expected or 0.0) / p.exact for p in known]),
            _mean_square(known),
        )
    dev = f"dev {result.metric}: {result.final:.3f} with the estimator, {result.final_exact:.3f} exact"
    table.caption = f"medians of steps; {dev}"
    table.caption_justify = "left"
    return table


def _quarters(count: int) -> list[tuple[int, int]]:
    parts = min(4, count)
    edges = [round(i * count / parts) for i in range(parts + 1)]
    return [*pairwise(edges), *([(0, count)] if parts > 1 else [])]


def _typical(values: Sequence[float]) -> str:
    return f"{median(values):.3f}" if values else "–"


def _mean_square(points: Sequence[NormPoint]) -> str:
    ratios = [(p.used / p.expected) ** 2 for p in points if p.expected]
    if len(ratios) < 2:
        return "–"
    return f"{fmean(ratios):.3f} ± {stdev(ratios) / len(ratios) ** 0.5:.3f}"


def budgets_table(result: BudgetsResult) -> Table:
    """Metric and variance at every budget, and whether the difference from exact can be told from noise."""
    table = Table(
        title=f"{result.estimator}: dev {result.metric} over {len(result.seeds)} seeds, {result.dev_size:,} examples; "
        f"Var Ĝ/‖G‖², median of {result.layers} layers of the exactly trained model",
        title_justify="left",
        caption=warning_of(result.exact.values, result.majority)
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


def transfer_table(result: TransferResult) -> Table:
    """Kendall's τ of two models, and what it costs to take one's best estimator to the other."""
    table = Table(
        title="Order of the estimators by Var Ĝ/‖G‖² on two models; regret: of taking one's best to the other",
        title_justify="left",
    )
    for column in ("scores", "budget", "A", "B", "τ", "best on A", "best on B", "A → B", "B → A"):
        name = column.startswith("best") or column in ("scores", "A", "B")
        table.add_column(column, justify="left" if name else "right", overflow="fold", no_wrap=not name)
    back = {(p.scores, p.budget, p.source, p.target): p for p in result.pairs}
    order = list(result.models)
    for pair in result.pairs:
        if order.index(pair.source) > order.index(pair.target):
            continue
        table.add_row(
            pair.scores,
            f"{pair.budget:g}",
            pair.source,
            pair.target,
            "–" if pair.tau is None else f"{pair.tau:+.2f}",
            pair.chosen,
            pair.best,
            f"{pair.regret:.2f}×",
            f"{back[pair.scores, pair.budget, pair.target, pair.source].regret:.2f}×",
        )
    return table
