"""The order of estimators on two models as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.transfer import TransferResult


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
