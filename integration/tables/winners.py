"""Rules for the number of winners |C| as tables for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from wtacrs.validation.records.winners import WinnersResult
from wtacrs.validation.summaries.winners import (
    FACTORS,
    WinnerCases,
    grouped,
    rule_label,
    told_interval,
    told_regret,
    told_worst,
    winner_cases,
)


def winners_tables(result: WinnersResult) -> list[Table]:
    """The regrets of every rule over all cases, and by every factor."""
    cases = winner_cases(result)
    return [rules_table(cases), factors_table(cases)]


def rules_table(cases: WinnerCases) -> Table:
    """Median, 95 % quantile and worst regret of every rule."""
    table = Table(
        title=f"|C| of WTA-CRS: variance over that of the best |C|, {cases.share.size:,} cases; 95 % intervals by "
        "bootstrap over trainings",
        title_justify="left",
    )
    for column in ("rule", "median", "interval", "95 % quantile", "interval", "worst"):
        table.add_column(column, justify="left" if column == "rule" else "right", overflow="fold")
    for one in cases.summaries.values():
        table.add_row(
            rule_label(one.rule),
            told_regret(one.median),
            escape(told_interval(one.median_interval)),
            told_regret(one.quantile),
            escape(told_interval(one.quantile_interval)),
            told_worst(one),
        )
    return table


def factors_table(cases: WinnerCases) -> Table:
    """Median regret and its 95 % quantile of every rule at every level of a factor, and the best |C|/k."""
    table = Table(
        title="Median regret (95 % quantile) by what cases differ in; median of the best |C|/k",
        title_justify="left",
    )
    rules = list(cases.regrets)
    for column in ("by", "level", *map(rule_label, rules), "best |C|/k"):
        table.add_column(column, justify="left" if column in ("by", "level") else "right", overflow="fold")
    for factor in FACTORS:
        for level, some in grouped(cases, factor):
            costs = (some.summaries[rule] for rule in rules)
            table.add_row(
                factor,
                escape(str(level)),
                *(f"{told_regret(one.median)} ({told_regret(one.quantile)})" for one in costs),
                f"{some.shares[1]:.2f}",
            )
    return table
