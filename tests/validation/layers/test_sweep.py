"""|C| sweeps: every point is the variance of that very estimator, and the marks are the rules' choices."""

from __future__ import annotations

import pickle
import time
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import products

from wtacrs.estimators import InputError, joint_norms, make, row_norms, rows_for, sampling_scores
from wtacrs.estimators.rows.ranking import rank_rows
from wtacrs.estimators.rows.wta_crs import fixed_winners
from wtacrs.validation.layers.captures import LayerCapture, write_captures
from wtacrs.validation.layers.compare import ZeroProduct
from wtacrs.validation.layers.sweep import (
    _BLOCK,
    MOST_POINTS,
    sweep_entry,
    sweep_winners,
    thinned,
    winner_variances,
)
from wtacrs.validation.problems import PROBLEMS, make_problem


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


@pytest.mark.parametrize("kind", ["oracle", "row-norms"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_marks_are_the_rules_choices(name, kind):
    x, dy = make_problem(name, 40, 5, 4, generator=seeded(1))
    (sweep,) = sweep_winners("layer", x, dy, [0.3], scores=kind)
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
    (sweep,) = sweep_winners("layer", x, dy, [0.3])
    assert sweep.paper < sweep.optimal
    assert sweep.variance[sweep.optimal] < 0.98 * sweep.variance[sweep.paper]
    assert sweep.variance[sweep.best] <= sweep.variance[sweep.optimal]
    assert sweep.variance[sweep.paper] < 0.9 * sweep.crs


def test_winners_that_hold_all_the_mass_are_exact_and_marked_inside_the_range():
    x = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    (sweep,) = sweep_winners("layer", x, torch.ones(5, 2, dtype=torch.float64), [3])
    assert sweep.paper == sweep.optimal == sweep.best == 2
    assert sweep.variance[2] == pytest.approx(0.0, abs=1e-14)
    assert sweep.variance[0] > 0.1


def test_all_rows_kept_is_exact_for_every_number_of_winners():
    x, dy = make_problem("gaussian", 6, 3, 2, generator=seeded())
    (sweep,) = sweep_winners("layer", x, dy, [1.0])
    assert sweep.variance == [0.0] * 6
    assert sweep.crs > 0.0


def test_padding_is_never_counted():
    x, dy = make_problem("heavy_tailed", 40, 5, 4, generator=seeded(3))
    mask = torch.arange(40) % 4 != 0
    dy = torch.where(mask.unsqueeze(1), dy, 0.0)
    spoilt = torch.where(mask.unsqueeze(1), x, 1e3)
    (clean,) = sweep_winners("layer", x, dy, [10], mask=mask, scores="row-norms")
    (masked,) = sweep_winners("layer", spoilt, dy, [10], mask=mask, scores="row-norms")
    assert masked.variance == pytest.approx(clean.variance, rel=1e-9)
    (unmasked,) = sweep_winners("layer", spoilt, dy, [10], scores="row-norms")
    assert unmasked.variance[0] > 2 * clean.variance[0]


def test_a_sweep_costs_about_as_much_as_a_few_variances():
    """2455 points at three budgets for less than the price of thirty, compared within one process."""
    x, dy = make_problem("heavy_tailed", 4096, 256, 256, generator=seeded(), dtype=torch.float32)
    scores = joint_norms(x, dy)
    estimator = make("wta_crs(budget=0.3)")

    def seconds(action) -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    one = min(seconds(lambda: estimator.variance(x, dy, scores=scores)) for _ in range(3))
    sweep = min(seconds(lambda: sweep_winners("layer", x, dy, [0.1, 0.2, 0.3])) for _ in range(2))
    assert sweep < 30 * one


def test_misuse_names_the_argument(unchecked):
    x, dy = make_problem("gaussian", 10, 3, 2, generator=seeded())
    with pytest.raises(InputError, match=r"budget=1\.5"):
        sweep_winners("layer", x, dy, [0.5, 1.5])
    with pytest.raises(InputError, match=r"budgets=\[\] must"):
        sweep_winners("layer", x, dy, [])
    for exact in (True, False):
        with pytest.raises(ZeroProduct, match="'layer'"):
            sweep_winners("layer", x, torch.zeros_like(dy), [0.5], products=exact)
    with pytest.raises(InputError, match="'layer': x or dy holds NaN"):
        sweep_winners("layer", x, torch.full_like(dy, torch.nan), [0.5])
    with pytest.raises(InputError, match="scores='rows'"):
        sweep_winners("layer", x, dy, [0.5], scores="rows")


BUDGETS = [3, 0.1, 0.5, 1.0, 1]


@pytest.mark.parametrize("kind", ["oracle", "row-norms"])
def test_all_budgets_at_once_are_each_by_itself(kind):
    x, dy = make_problem("heavy_tailed", 300, 5, 4, generator=seeded(4))
    dy[::7] = 0.0
    together = sweep_winners("layer", x, dy, BUDGETS, captures="model", scores=kind)
    assert [s.budget for s in together] == BUDGETS
    assert [s.k for s in together] == [3, 30, 150, 300, 1]
    for sweep, budget in zip(together, BUDGETS, strict=True):
        (alone,) = sweep_winners("layer", x, dy, [budget], captures="model", scores=kind)
        assert sweep.model_dump(exclude={"variance", "crs"}) == alone.model_dump(exclude={"variance", "crs"})
        assert sweep.variance == pytest.approx(alone.variance, rel=1e-9, abs=1e-12)
        assert sweep.crs == pytest.approx(alone.crs, rel=1e-9)


def test_a_long_curve_is_thinned_and_keeps_its_ends_and_choices():
    x, dy = make_problem("heavy_tailed", 2000, 3, 2, generator=seeded(5))
    (sweep,) = sweep_winners("layer", x, dy, [0.5])
    assert len(sweep.winners) <= MOST_POINTS < sweep.k
    assert {0, sweep.k - 1, sweep.paper, sweep.optimal, sweep.best} <= set(sweep.winners)
    assert list(sweep.winners) == sorted(set(sweep.winners))
    assert max(b - a for a, b in pairwise(sweep.winners)) <= 2 * sweep.k / MOST_POINTS
    every = winner_variances(rank_rows(sampling_scores(x, joint_norms(x, dy))), x, dy, sweep.k)
    unit = float((dy.T @ x).square().sum())
    assert sweep.variance == pytest.approx([float(every[c]) / unit for c in sweep.winners], rel=1e-9)
    assert sweep.best == int(every.argmin())


@given(k=st.integers(1, 2000), data=st.data(), most=st.integers(6, 50))
def test_thinning_keeps_what_it_must(k, data, most):
    choices = data.draw(st.lists(st.integers(0, k - 1), max_size=3))
    kept = thinned(k, choices, most)
    assert len(kept) <= max(most, 0)
    assert {0, k - 1, *choices} <= set(kept) <= set(range(k))
    assert kept == sorted(set(kept))


def test_without_products_it_is_the_bound_and_claims_no_best():
    x, dy = make_problem("heavy_tailed", 60, 5, 4, generator=seeded(6))
    (bound,) = sweep_winners("layer", x, dy, [0.3], products=False)
    (exact,) = sweep_winners("layer", x, dy, [0.3])
    assert (bound.products, exact.products) == (False, True)
    assert bound.best is None
    assert (bound.paper, bound.optimal) == (exact.paper, exact.optimal)
    w = joint_norms(x, dy).sort(descending=True).values
    expected = [float(w[c:].sum() ** 2 / (18 - c) / w.sum() ** 2) for c in range(18)]
    assert bound.variance == pytest.approx(expected, rel=1e-9)
    assert bound.crs == pytest.approx(1 / 18, rel=1e-12)
    scale = float(w.sum()) ** 2 / float((dy.T @ x).square().sum())
    assert all(b * scale >= e for b, e in zip(bound.variance, exact.variance, strict=True))


def test_a_tail_of_one_row_has_no_variance_in_single_precision():
    """What is left of w² − ‖Z‖² is rounding, of either sign, and must not count as regret."""
    for seed in range(20):
        x, dy = make_problem("gaussian", 8, 60, 50, generator=seeded(seed), dtype=torch.float32)
        dy[5:] = 0.0
        (sweep,) = sweep_winners("layer", x, dy, [5], scores="oracle")
        assert sweep.variance[4] == 0.0
        assert sweep.variance[3] > 1e-3


def test_rows_out_of_reach_belong_to_the_unit_and_to_no_tail():
    x, dy = make_problem("heavy_tailed", 30, 4, 3, generator=seeded(9))
    mask = torch.arange(30) >= 6
    scores = joint_norms(x, dy) * mask
    (sweep,) = sweep_winners("layer", x, dy, [10], mask=mask)
    unit = float((dy.T @ x).square().sum())
    assert sweep.crs == pytest.approx(
        float(make("crs(budget=10)").variance(x, dy, scores=scores)) / unit, rel=1e-9
    )
    for c in range(10):
        expected = float(make("wta_crs", budget=10, winners=c).variance(x, dy, scores=scores)) / unit
        assert sweep.variance[c] == pytest.approx(expected, rel=1e-9)


def test_an_entry_of_a_file_is_one_piece_of_work(tmp_path):
    x, dy = make_problem("heavy_tailed", 30, 4, 3, generator=seeded(8), dtype=torch.float32)
    mask = torch.arange(30) < 25
    dy = dy * mask.unsqueeze(1)
    path = write_captures(tmp_path / "c.safetensors", {"a#0": LayerCapture(x, dy, mask)}, {})
    work = partial(sweep_entry, path, "a#0", [0.2, 0.4], "m", ("oracle", "row-norms"), True)
    found = list(pickle.loads(pickle.dumps(work))().records)
    assert [(s.captures, s.layer, s.scores, s.budget) for s in found] == [
        ("m", "a#0", kind, budget) for kind in ("oracle", "row-norms") for budget in (0.2, 0.4)
    ]
    assert found[2:] == sweep_winners("a#0", x, dy, [0.2, 0.4], captures="m", mask=mask, scores="row-norms")


def test_fixed_parts_of_k_are_always_listed():
    x, dy = make_problem("heavy_tailed", 2000, 3, 2, generator=seeded(5))
    fractions = (0.0, 0.123, 0.5, 0.999)
    (sweep,) = sweep_winners("layer", x, dy, [0.5], scores="row-norms", fractions=fractions)
    assert len(sweep.winners) <= MOST_POINTS < sweep.k
    for fraction in fractions:
        estimator = make("wta_crs", budget=0.5, winners=fraction)
        variance = sweep.variance[sweep.winners.index(fixed_winners(fraction, sweep.k))]
        expected = float(estimator.variance(x, dy, scores=row_norms(x))) / float((dy.T @ x).square().sum())
        assert variance == pytest.approx(expected, rel=1e-9)
