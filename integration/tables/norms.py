"""Gradient norms over training as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.norms import NormsResult
from wtacrs.validation.summaries.norms import norms_quarters


def norms_table(result: NormsResult) -> Table:
    """What training used beside the exact gradient of the same steps, in quarters of the training.

    The last column is the mean over steps of ‖Ĝ‖² over the ‖G‖² + Var that theory expects, and its standard error: near
    1 if theory holds.
    """
    table = Table(title=f"{result.estimator} for the dW of {result.layer}", title_justify="left")
    for column in ("steps", "‖Ĝ‖", "‖G‖", "‖G‖, exact run", "‖Ĝ‖/‖G‖", "expected", "‖Ĝ‖²/expected²"):
        table.add_column(column, justify="right", no_wrap=True)
    for quarter in norms_quarters(result):
        table.add_row(
            f"{quarter.first} – {quarter.last}",
            f"{quarter.used:.3g}",
            f"{quarter.exact:.3g}",
            "–" if quarter.beside is None else f"{quarter.beside:.3g}",
            "–" if quarter.relative is None else f"{quarter.relative:.3f}",
            "–" if quarter.expected is None else f"{quarter.expected:.3f}",
            "–" if quarter.squares is None else "{:.3f} ± {:.3f}".format(*quarter.squares),
        )
    dev = f"dev {result.metric}: {result.final:.3f} with the estimator, {result.final_exact:.3f} exact"
    table.caption = f"medians of steps; {dev}"
    table.caption_justify = "left"
    return table
