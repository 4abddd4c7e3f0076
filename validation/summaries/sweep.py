"""Choices of the number of winners |C| in few numbers: regrets of the rules, and which rule is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from wtacrs.validation.records.sweep import WinnerSweep
from wtacrs.validation.summaries.ratio import ratio


def choice_variance(sweep: WinnerSweep, winners: int) -> float:
    """Variance at a listed number of winners; with k winners nothing is left to chance."""
    return 0.0 if winners == sweep.k else sweep.variance[sweep.winners.index(winners)]


def regret(sweep: WinnerSweep, winners: int) -> float | None:
    """Variance at that number of winners over the least possible one; 1 is best. None where no best is known."""
    if sweep.best is None:
        return None
    return ratio(choice_variance(sweep, winners), choice_variance(sweep, sweep.best))


@dataclass(frozen=True)
class ChoiceSummary:
    """The choices of |C| over the layers and batches of one captured file, at one budget with one kind of scores.

    The paper's rule, the optimal rule and the true minimiser: medians of |C|/k, median and largest regret,
    and the regrets case by case. Where ‖G_T‖² was left out there are no regrets and no best |C|.
    """

    captures: str
    scores: str
    budget: int | float
    cases: int
    paper_fraction: float
    optimal_fraction: float
    best_fraction: float | None
    paper_regrets: tuple[float, ...]
    optimal_regrets: tuple[float, ...]


def choice_summaries(sweeps: Iterable[WinnerSweep]) -> list[ChoiceSummary]:
    """One entry per (captures, scores, budget), in order of appearance, budgets rising."""
    groups: dict[tuple[str, str, str], list[WinnerSweep]] = {}
    for sweep in sweeps:
        groups.setdefault((sweep.captures, sweep.scores, repr(sweep.budget)), []).append(sweep)
    files = list(dict.fromkeys(captures for captures, _, _ in groups))
    kinds = list(dict.fromkeys(scores for _, scores, _ in groups))
    found = [_choices(group) for group in groups.values()]
    return sorted(found, key=lambda e: (files.index(e.captures), kinds.index(e.scores), budget_order(e.budget)))


def budget_order(budget: int | float) -> tuple[bool, int | float]:
    """Order of budgets: fractions first, then numbers of rows."""
    return isinstance(budget, int), budget


def _choices(group: Sequence[WinnerSweep]) -> ChoiceSummary:
    first = group[0]
    exact = [s for s in group if s.best is not None]
    return ChoiceSummary(
        captures=first.captures,
        scores=first.scores,
        budget=first.budget,
        cases=len(group),
        paper_fraction=median(s.paper / s.k for s in group),
        optimal_fraction=median(s.optimal / s.k for s in group),
        best_fraction=median(s.best / s.k for s in exact if s.best is not None) if exact else None,
        paper_regrets=tuple(r for s in exact if (r := regret(s, s.paper)) is not None),
        optimal_regrets=tuple(r for s in exact if (r := regret(s, s.optimal)) is not None),
    )


def which_winners(sweeps: Sequence[WinnerSweep]) -> list[str]:
    """The answer to "which |C|?" in a sentence for every kind of scores."""
    return [
        f"Which |C|, {kind}? {_answer([s for s in sweeps if s.scores == kind])}"
        for kind in dict.fromkeys(s.scores for s in sweeps)
    ]


def _answer(sweeps: Sequence[WinnerSweep]) -> str:
    exact = [s for s in sweeps if s.best is not None]
    if not exact:
        return "Not known: without ‖G_T‖² there is no exact variance to compare."
    rules = {"the optimal rule": "optimal", "the paper's rule": "paper"}
    found = {name: [(regret(s, getattr(s, rule)) or 0.0, s) for s in exact] for name, rule in rules.items()}
    better, other = sorted(
        found, key=lambda name: (median(r for r, _ in found[name]), max(r for r, _ in found[name]))
    )
    first, second = _cost(found[better]), _cost(found[other])
    return f"That of {better}: variance over that of the best |C| {first}; {other}: {second}; {len(exact)} cases."


def _cost(found: list[tuple[float, WinnerSweep]]) -> str:
    worst, where = max(found, key=lambda pair: pair[0])
    told = f"{median(r for r, _ in found):.3f} in the median"
    if worst == 1.0:
        return f"{told} and at worst"
    size = f"{worst:.4g}" if math.isfinite(worst) else "infinite, the best one being exact,"
    return f"{told}, at worst {size} in {where.layer} at budget {where.budget:g}"
