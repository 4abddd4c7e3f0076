"""The tables of the rules for |C|: intervals are shown as they are, infinite ones too."""

from __future__ import annotations

from rich.console import Console
from support.result_examples import every_kind

from wtacrs.integration.tables.winners import winners_tables


def test_infinite_intervals_are_no_markup() -> None:
    rules, factors = winners_tables(every_kind()["winners"])
    console = Console(width=300)
    with console.capture() as shown:
        console.print(rules, factors)
    text = shown.get()
    assert "[infinite, infinite]" in text  # of the fixed |C| = 0
    assert 'enc<script>&"q"' in text
    assert rules.row_count == 3
    assert factors.row_count == 2 + 1 + 2 + 3 + 2  # models, tasks, steps, scores, budgets
