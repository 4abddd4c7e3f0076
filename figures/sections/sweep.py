"""Sweeps over the number of winners |C| in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

from wtacrs.figures.plots import winner_regret, winner_sweep
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Details, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.sweep import SweepResult, WinnerSweep
from wtacrs.validation.summaries.sweep import choice_summaries, choice_variance, regret, which_winners


def section(results: Sequence[Named[SweepResult]]) -> Section:
    """The |C| figures, the regrets of the two rules, and every layer folded away."""
    section = Section("How many winners: |C|")
    for _, result in section.each(results):
        section.draw(
            partial(winner_sweep.build, result),
            "Variance against the number of winners",
            f"{_what(result)} of WTA-CRS against |C| at one budget, relative to plain CRS with the same scores and k, "
            "the level line; lower is better, and a good rule lands in the square. The paper's rule minimises "
            "P_T / (k − |C|), the optimal rule S_T² / (k − |C|), with P_T the tail's share of the scores, S_T their sum.",
            finding=partial(findings.of_sweep, result),
        )
        section.draw(
            partial(winner_regret.build, result),
            "Regret of the rules for the number of winners",
            "Variance at a rule's |C| over that at the best |C|, against the budget: median over layers, their middle "
            "half, and the worst layer. 1 is perfect.",
            finding=partial(findings.of_regrets, result),
        )
        section.add(
            *(Paragraph(sentence) for sentence in which_winners(result.sweeps)),
            *_regrets(result.sweeps),
            Details("All layers", [_layers(result.sweeps)]),
        )
    return section


def _what(result: SweepResult) -> str:
    exact = all(s.products for s in result.sweeps)
    return "Exact variance" if exact else "Upper bound of the variance, without ‖G_T‖²,"


def _regrets(found: Sequence[WinnerSweep]) -> tuple[Table, Paragraph]:
    """Per file, budget and kind of scores: how many winners, and how far the rules are from the best |C|."""
    rows: list[list[Cell]] = []
    for e in choice_summaries(found):
        best = "–" if e.best_fraction is None else f"{e.best_fraction:.2f}"
        paper, optimal = _median_and_worst(e.paper_regrets), _median_and_worst(e.optimal_regrets)
        rows.append([e.captures, e.scores, f"{e.budget:g}", str(e.cases), f"{e.paper_fraction:.2f}", *paper,
                     f"{e.optimal_fraction:.2f}", *optimal, best])  # fmt: skip
    note = Paragraph(
        "Medians over the cases, layers and batches. Regret: variance at the choice over that at the best |C|; 1 is "
        "perfect, 1.2 is 20 % more variance than needed.",
        soft=True,
    )
    choice = ["|C| / k", "median regret", "worst regret"]
    head = ["captures", "scores", "budget", "cases", *choice, *choice, "|C| / k"]
    groups = [("", 4), ("paper's rule", 3), ("optimal rule", 3), ("best", 1)]
    return Table(head, rows, groups=groups, numeric=range(2, 11)), note


def _median_and_worst(regrets: Sequence[float]) -> tuple[str, str]:
    return (f"{median(regrets):.3f}", f"{max(regrets):.3f}") if regrets else ("–", "–")


def _layers(found: Sequence[WinnerSweep]) -> Table:
    choice = ["|C|", "regret"]
    head = ["captures", "layer", "scores", "budget", "n", "k", *choice, *choice, "|C|", "variance", "variance"]
    groups = [("", 6), ("paper's rule", 2), ("optimal rule", 2), ("best", 2), ("CRS", 1)]
    body: list[list[Cell]] = [
        [
            s.captures, s.layer, s.scores, f"{s.budget:g}", f"{s.n}", f"{s.k}", f"{s.paper}", _regret(s, s.paper),
            f"{s.optimal}", _regret(s, s.optimal), *_best(s), number(s.crs),
        ]
        for s in found
    ]  # fmt: skip
    return Table(head, body, groups=groups, numeric=range(3, 13))


def _regret(sweep: WinnerSweep, winners: int) -> str:
    value = regret(sweep, winners)
    return "–" if value is None else f"{value:.3f}"


def _best(sweep: WinnerSweep) -> tuple[Cell, Cell]:
    if sweep.best is None:
        return "–", "–"
    return f"{sweep.best}", number(choice_variance(sweep, sweep.best))
