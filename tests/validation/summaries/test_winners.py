"""Regrets of rules for |C| in few numbers: by hand, under resampling, and which rule is recommended."""

from __future__ import annotations

import math

import numpy
import pytest
from support.result_examples import STAMP

from wtacrs.validation.records.winners import OPTIMAL, PAPER, RuleRegrets, WinnersResult, WinnerState
from wtacrs.validation.summaries.winners import grouped, told_worst, winner_cases, winners_sentences

INF = math.inf


def result(*trainings: dict[str, list[float]], **changes: object) -> WinnersResult:
    """Ten layers of 100 rows in every training, all with the same scores and budget."""
    states = []
    for seed, regrets in enumerate(trainings):
        count = len(next(iter(regrets.values())))
        choice = RuleRegrets(scores="oracle", budget=0.2, best=list(range(count)), regrets=regrets)
        common = {"model": "m", "task": "t", "seed": seed, "step": 0, "choices": [choice]}
        states.append(
            WinnerState(layers=[f"l{i}" for i in range(count)], rows=[100] * count, **(common | changes))
        )
    rules = list(trainings[0])
    return WinnersResult(stamp=STAMP, rules=rules, age=1, batch_size=8, max_length=16, min_rows=1, states=states)


def test_quantiles_by_hand_with_infinite_regrets() -> None:
    paper = [1.0] * 10 + [1.5] * 8 + [3.0, INF]
    (one,) = winner_cases(result({PAPER: paper})).summaries.values()
    assert (one.cases, one.median, one.quantile, one.worst, one.infinite) == (20, 1.0, 3.0, 3.0, 1)
    assert told_worst(one) == "3.00 (1 infinite)"
    assert (one.median_interval, one.quantile_interval) == (None, None)  # a single training


def test_intervals_draw_whole_trainings() -> None:
    """Two trainings of which one has every large regret: it is left out in a quarter of the resamples."""
    cases = winner_cases(result({PAPER: [1.0] * 10}, {PAPER: [2.0] * 10}))
    one = cases.summaries[PAPER]
    assert (one.median, one.quantile) == (1.0, 2.0)
    assert one.quantile_interval == (1.0, 2.0)
    alike = winner_cases(result(*[{PAPER: [1.0, 2.0, 3.0]}] * 5)).summaries[PAPER]
    assert (alike.median_interval, alike.quantile_interval) == ((2.0, 2.0), (3.0, 3.0))
    many = winner_cases(result(*[{PAPER: [float(i)]} for i in range(1, 41)])).summaries[PAPER]
    low, high = many.median_interval
    assert 10 < low < many.median < high < 31  # √40 · ½ ≈ 3.2 ranks, twice of it


@pytest.mark.parametrize(
    ("paper", "optimal", "best"),
    [
        ([1.0] * 18 + [9.0] * 2, [1.2] * 20, OPTIMAL),  # a worse median, a better 95 % quantile
        ([1.0] * 19 + [9.0], [1.0] * 19 + [8.0], OPTIMAL),  # equal quantiles, by the worst case
        ([1.0] * 20, [1.2] * 20, PAPER),
    ],
)
def test_the_recommended_rule_has_the_least_worst_case(paper, optimal, best) -> None:
    found = result({PAPER: paper, OPTIMAL: optimal})
    assert winner_cases(found).recommended.rule == best
    (sentence,) = winners_sentences(found)  # one kind of scores
    words = "the paper's rule" if best == PAPER else "the optimal rule"
    assert sentence.startswith(f"Over all 20 cases: take {words};")
    assert sentence.endswith(" at worst.")


def test_cases_by_factor_and_the_best_share() -> None:
    found = result({PAPER: [1.0, 2.0, 3.0]})
    other = result({PAPER: [5.0, 6.0, 7.0]}, step=40, model="a").states
    cases = winner_cases(found.model_copy(update={"states": [*other, *found.states]}))
    assert cases.levels("step") == [0, 40]
    assert cases.levels("model") == ["a", "m"]
    assert {level: some.summaries[PAPER].median for level, some in grouped(cases, "step")} == {0: 2.0, 40: 6.0}
    numpy.testing.assert_allclose(cases.shares, numpy.quantile([0, 0.05, 0.1] * 2, (0.25, 0.5, 0.75)))
    assert len(set(cases.training.tolist())) == 2
