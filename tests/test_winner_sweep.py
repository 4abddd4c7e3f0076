"""|C| sweeps: every point is the variance of that very estimator, and the marks are the rules' choices."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import products

from wtacrs.estimators import InputError, joint_norms, make, row_norms, rows_for, sampling_scores
from wtacrs.estimators.ranking import rank_rows
from wtacrs.validation.comparison import ZeroProduct
from wtacrs.validation.problems import PROBLEMS, make_problem
from wtacrs.validation.winner_sweep import _BLOCK, sweep_winners, winner_variances


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_points(x, dy, k, scores) -> None:
    found = winner_variances(rank_rows(sampling_scores(x, scores)), x, dy, k)
    scale = float(joint_norms(x, dy).sum()) ** 2
    for c in range(k):
        estimator = make("wta_crs", budget=k, winners=c)
        expected = float(estimator.variance(x, dy, scores=scores))
        assert float(found[c]) == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale), c


@settings(max_examples=60)
@given(
    problem=products(max_rows=10),
    k=st.integers(1, 10),
    levels=st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.0, 9.0]), min_size=10, max_size=10),
)
def test_every_point_is_the_closed_form(problem, k, levels):
    x, dy = problem
    n = x.shape[0]
    for scores in (joint_norms(x, dy), torch.tensor(levels[:n], dtype=torch.float64)):
        assert_points(x, dy, min(k, n), scores)


@pytest.mark.parametrize("k", [_BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK + 7])
def test_blocks_join_without_a_seam(k):
    x, dy = make_problem("heavy_tailed", 320, 5, 4, generator=seeded())
    assert_points(x, dy, k, row_norms(x))


@pytest.mark.parametrize("kind", ["oracle", "row norms"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_marks_are_the_rules_choices(name, kind):
    x, dy = make_problem(name, 40, 5, 4, generator=seeded(1))
    sweep = sweep_winners("layer", x, dy, 0.3, scores=kind)
    scores = joint_norms(x, dy) if kind == "oracle" else row_norms(x)
    unit = float((dy.T @ x).square().sum())
    assert (sweep.layer, sweep.scores, sweep.n, sweep.k) == ("layer", kind, 40, rows_for(0.3, 40))
    assert len(sweep.variance) == sweep.k
    assert sweep.variance[sweep.best] == min(sweep.variance)
    for rule, mark in (("paper", sweep.paper), ("optimal", sweep.optimal)):
        estimator = make("wta_crs", budget=0.3, winners=rule)
        expected = float(estimator.variance(x, dy, scores=scores)) / unit
        assert sweep.variance[mark] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    crs = float(make("crs(budget=0.3)").variance(x, dy, scores=scores)) / unit
    assert sweep.crs == pytest.approx(crs, rel=1e-12)
    assert sweep.variance[0] == pytest.approx(crs, rel=1e-9)


def test_the_exact_variance_rule_keeps_more_winners_and_wins_on_heavy_tails():
    x, dy = make_problem("heavy_tailed", 400, 8, 6, generator=seeded(2))
    sweep = sweep_winners("layer", x, dy, 0.3)
    assert sweep.paper < sweep.optimal
    assert sweep.variance[sweep.optimal] < 0.98 * sweep.variance[sweep.paper]
    assert sweep.variance[sweep.best] <= sweep.variance[sweep.optimal]
    assert sweep.variance[sweep.paper] < 0.9 * sweep.crs


def test_winners_that_hold_all_the_mass_are_exact_and_marked_inside_the_range():
    x = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    sweep = sweep_winners("layer", x, torch.ones(5, 2, dtype=torch.float64), 3)
    assert sweep.paper == sweep.optimal == sweep.best == 2
    assert sweep.variance[2] == pytest.approx(0.0, abs=1e-14)
    assert sweep.variance[0] > 0.1


def test_all_rows_kept_is_exact_for_every_number_of_winners():
    x, dy = make_problem("gaussian", 6, 3, 2, generator=seeded())
    sweep = sweep_winners("layer", x, dy, 1.0)
    assert sweep.variance == [0.0] * 6
    assert sweep.crs > 0.0


def test_padding_is_never_counted():
    x, dy = make_problem("heavy_tailed", 40, 5, 4, generator=seeded(3))
    mask = torch.arange(40) % 4 != 0
    dy = torch.where(mask.unsqueeze(1), dy, 0.0)
    spoilt = torch.where(mask.unsqueeze(1), x, 1e3)
    clean = sweep_winners("layer", x, dy, 10, mask=mask, scores="row norms")
    assert sweep_winners("layer", spoilt, dy, 10, mask=mask, scores="row norms").variance == pytest.approx(
        clean.variance, rel=1e-9
    )
    assert sweep_winners("layer", spoilt, dy, 10, scores="row norms").variance[0] > 2 * clean.variance[0]


def test_one_sweep_costs_about_as_much_as_a_few_variances():
    """1228 points for less than the price of thirty, compared within one process."""
    x, dy = make_problem("heavy_tailed", 4096, 256, 256, generator=seeded(), dtype=torch.float32)
    scores = joint_norms(x, dy)
    estimator = make("wta_crs(budget=0.3)")

    def seconds(action) -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    one = min(seconds(lambda: estimator.variance(x, dy, scores=scores)) for _ in range(3))
    sweep = min(seconds(lambda: sweep_winners("layer", x, dy, 0.3)) for _ in range(2))
    assert sweep < 30 * one


def test_misuse_names_the_argument(unchecked):
    x, dy = make_problem("gaussian", 10, 3, 2, generator=seeded())
    with pytest.raises(InputError, match=r"budget=1\.5"):
        sweep_winners("layer", x, dy, 1.5)
    with pytest.raises(ZeroProduct, match="'layer'"):
        sweep_winners("layer", x, torch.zeros_like(dy), 0.5)
    with pytest.raises(InputError, match="scores='rows'"):
        sweep_winners("layer", x, dy, 0.5, scores="rows")
