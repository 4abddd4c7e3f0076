"""Rules for the number of winners |C| over architectures, tasks and times, in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import winners as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Details, Named, Paragraph, Section, Table
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
    winners_sentences,
)


def section(results: Sequence[Named[WinnersResult]]) -> Section:
    """The figure, the recommendations, and the regrets over all cases and by every factor."""
    section = Section("Which number of winners")
    for _, result in section.each(results):
        section.draw(
            partial(figure.build, result),
            "Regret of rules for the number of winners, and the best number",
            "First panel: exact variance at a rule's |C| over that at the best |C|, median and 95 % quantile over all "
            "cases. Other panels: the best |C| as a part of k, median and quartiles.",
            finding=partial(findings.of_winners, result),
        )
        cases = winner_cases(result)
        section.add(*(Paragraph(sentence) for sentence in winners_sentences(result)), _overall(cases))
        section.add(Details("By architecture, task, time, scores and budget", [_by_factor(cases)]))
    return section


def _overall(cases: WinnerCases) -> Table:
    rows: list[list[Cell]] = [
        [
            rule_label(one.rule),
            told_regret(one.median),
            told_interval(one.median_interval),
            told_regret(one.quantile),
            told_interval(one.quantile_interval),
            told_worst(one),
        ]
        for one in cases.summaries.values()
    ]
    head = ["rule", "median", "interval", "95 % quantile", "interval", "worst"]
    told = "Regrets over all cases; 95 % intervals by bootstrap over trainings"
    return Table(head, rows, numeric=list(range(1, len(head))), caption=told)


def _by_factor(cases: WinnerCases) -> Table:
    rules = list(cases.regrets)
    rows: list[list[Cell]] = []
    for factor in FACTORS:
        for level, some in grouped(cases, factor):
            low, middle, high = some.shares
            found = [some.summaries[rule] for rule in rules]
            costs = [f"{told_regret(one.median)} ({told_regret(one.quantile)})" for one in found]
            rows.append(
                [
                    factor,
                    str(level),
                    *costs,
                    rule_label(some.recommended.rule),
                    f"{middle:.2f} ({low:.2f}–{high:.2f})",
                ]
            )
    head = ["by", "level", *map(rule_label, rules), "least 95 % quantile", "best |C|/k"]
    told = "Median regret and 95 % quantile; best |C|/k with its quartiles"
    return Table(head, rows, numeric=list(range(2, len(head))), caption=told)
