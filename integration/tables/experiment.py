"""An experiment as a table for the terminal, and its verdicts in words."""

from __future__ import annotations

from rich.table import Table

from wtacrs.integration.tables.common import warning_line
from wtacrs.validation.records.experiment import ExperimentResult, ExperimentRow


def experiment_table(result: ExperimentResult) -> Table:
    """One row per label: mean over seeds, difference from exact with its interval, both p-values, the verdict."""
    config = result.config
    seeds = len(config["seeds"])
    title = (
        f"{config['name']}: {result.metric} over {seeds} seeds, {result.dev_size:,} dev examples; "
        f"margin {config['margin']:g}, level {config['level']:g} (Holm), variance {_told(config['variance'])}"
    )
    table = Table(title=title, title_justify="left")
    interval = f"{1 - 2 * config['level']:.0%} interval"
    tests = ("− exact", interval, "p equivalent", "p different", "verdict", "seeds needed")
    by_loss = any(row.loss is not None for row in result.rows)
    losses = ("dev loss", "loss − exact", "by loss") if by_loss else ()
    for column in ("run", "mean", "± SE", *tests, "time", *losses):
        table.add_column(column, justify="left" if column in ("run", "verdict", "by loss") else "right")
    for row in result.rows:
        table.add_row(
            row.label,
            f"{row.mean:.4f}",
            "–" if row.error is None else f"{row.error:.4f}",
            *_standing(row),
            _seeds(row),
            f"{row.seconds:.2f}×",
            *(_loss(row) if by_loss else ()),
        )
    table.caption = warning_line(result.values(result.rows[0].label), result.majority) + (
        f"always answering with the most frequent class: {result.majority:.4f}; seeds needed: to show, in 4 cases of 5, "
        "that a method which varies so and is as good as exact is equivalent"
    )
    table.caption_justify = "left"
    return table


def _loss(row: ExperimentRow) -> tuple[str, str, str]:
    found = row.loss_standing
    mean = "–" if row.loss is None else f"{row.loss:.4f}"
    if found is None:
        return mean, "–", "–"
    return mean, f"{found.difference:+.4f} \\[{found.low:+.4f}, {found.high:+.4f}]", found.verdict


def _told(variance: str) -> str:
    return "pooled over the methods" if variance == "pooled" else "of each method alone"


def _seeds(row: ExperimentRow) -> str:
    if row.standing is None:
        return "–"
    return "> 10,000" if row.seeds_needed is None else f"{row.seeds_needed:,}"


def _standing(row: ExperimentRow) -> tuple[str, ...]:
    found = row.standing
    if found is None:
        return ("–", "–", "–", "–", "–")
    return (
        f"{found.difference:+.4f}",
        f"[{found.low:+.4f}, {found.high:+.4f}]".replace("[", "\\["),
        f"{found.equivalent:.3g}",
        f"{found.different:.3g}",
        found.verdict,
    )
