"""Theorems on random problems, and one counter-example to each ordering that only looks true."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.strategies import products, score_lists
from torch import Tensor

from wtacrs.estimators import joint_norms, make, row_norms
from wtacrs.estimators.rows.fixed_size import FixedSizeEstimator
from wtacrs.estimators.rows.inclusion import inclusion
from wtacrs.estimators.rows.ranking import rank_rows
from wtacrs.estimators.rows.wta_crs import winner_objective
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.problems import make_problem
from wtacrs.validation.theory.quantities import (
    WITHOUT_REPLACEMENT,
    averaged_error,
    correlated,
    exact_variance,
    fanned,
    periodic,
    priority_variance_of_equal_scores,
    winner_rules,
)

seeds = st.integers(0, 2**31)


def size(x: Tensor, dy: Tensor) -> float:
    return float(joint_norms(x, dy).sum()) ** 2


@given(score_lists(min_rows=2, max_rows=30), st.data())
@settings(max_examples=200)
def test_the_papers_winners_are_the_take_all_set(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores) - 1))
    s = torch.tensor(scores, dtype=torch.float64)
    rules = winner_rules(s, k)
    s = s / s.max() if bool((s > 0).any()) else torch.ones_like(s)
    ranking = rank_rows(s)
    loss = winner_objective(ranking, k, "paper")
    if float(ranking.remainder[k]) == 0:  # every row of positive score fits: all are winners by the paper's rule
        assert float(inclusion(s, k).probabilities[s > 0].min()) == pytest.approx(1.0, rel=1e-12)
        return
    # at a tie, P(next row) = 1, both numbers of winners are minimal; rounding chooses
    assert float(loss[rules.take_all]) == pytest.approx(float(loss[rules.paper]), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("family", ["normal", "uniform", "heavy"])
def test_the_papers_winners_are_the_take_all_set_without_ties(family: str, generator: torch.Generator) -> None:
    for n in (5, 50, 500):
        for k in {1, n // 10 + 1, n // 3, n - 1}:
            s = torch.rand(n, generator=generator, dtype=torch.float64)
            s = {"normal": torch.special.ndtri(s).abs(), "uniform": s, "heavy": s**-1.5}[family]
            rules = winner_rules(s, k)
            assert rules.paper == rules.take_all <= rules.optimal


@given(seeds, st.integers(3, 30), st.data())
def test_take_all_inclusion_is_the_optimum(seed: int, n: int, data: st.DataObject) -> None:
    """No transfer of inclusion probability between two rows lowers Σ (1/π − 1) w²."""
    k = data.draw(st.integers(1, n - 1))
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3 + 1e-3
    p = inclusion(w, k).probabilities
    assert float(p.sum()) == pytest.approx(k, rel=1e-12)
    gain = (w / p).square()  # what more of π_i would save
    free = p < 1
    if bool(free.any()):
        assert float(gain[free].max()) == pytest.approx(float(gain[free].min()), rel=1e-9)
        assert bool((gain[~free] >= gain[free].max() * (1 - 1e-9)).all())


@given(products(), st.data())
@settings(max_examples=100)
def test_the_optimal_rule_is_never_above_the_papers_in_its_own_objective(
    xy: tuple[Tensor, Tensor], data: st.DataObject
) -> None:
    """Its objective S_T²/(k − c) is the variance up to ‖G_T‖²: the variance itself if the tail's sum vanishes."""
    x, dy = xy
    k = data.draw(st.integers(1, max(len(x) - 1, 1)))
    w = joint_norms(x, dy)
    if len(x) == 1 or not bool((w > 0).any()):
        return
    loss = winner_objective(rank_rows(w / w.max()), k, "optimal")
    rules = winner_rules(w, k)
    assert float(loss[rules.optimal]) <= float(loss[rules.paper])


def test_the_optimal_rule_is_below_the_papers_in_typical_problems() -> None:
    ratios = []
    for seed in range(20):
        x, dy = make_problem("heavy_tailed", 200, 8, 8, generator=torch.Generator().manual_seed(seed))
        paper = exact_variance("wta_crs(budget=0.2)", x, dy)
        ratios.append(exact_variance('wta_crs(budget=0.2, winners="optimal")', x, dy) / paper)
    assert max(ratios) <= 1.0
    assert sorted(ratios)[10] < 0.99


def problem(seed: int, n: int, kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    dy = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    x = x * torch.rand(n, 1, generator=generator, dtype=torch.float64) ** {"plain": 0, "scattered": 2}.get(kind, 1)
    return (x.abs(), dy.abs()) if kind == "coherent" else (x, dy)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", WITHOUT_REPLACEMENT)
@given(seeds, st.integers(2, 40), st.sampled_from(["plain", "scattered", "coherent"]), st.booleans(), st.data())
@settings(max_examples=120)
def test_without_replacement_is_never_above_wta_crs(
    spec: str, seed: int, n: int, kind: str, oracle: bool, data: st.DataObject
) -> None:
    """By exact joint probabilities, with the oracle's scores and with the row norms."""
    x, dy = problem(seed, n, kind)
    k = data.draw(st.integers(1, n - 1))
    scores = joint_norms(x, dy) if oracle else None
    with_replacement = float(make("wta_crs", budget=k).variance(x, dy, scores=scores))
    without = float(make(spec.format(k=k)).variance(x, dy, scores=scores))
    assert without <= with_replacement + 1e-10 * (size(x, dy) + with_replacement)


def excess(spec: str, scores: Tensor, k: int) -> float:
    """Largest `Σ_{i≠j} π_ij z_i z_j − (1 − 1/k)(Σ π_i z_i)²` with `Σ π_i z_i² = 1`: positive if some G loses."""
    estimator = make(spec, budget=k)
    assert isinstance(estimator, FixedSizeEstimator)
    p = inclusion(scores, k).probabilities
    form = estimator.joint(p, k).matrix.fill_diagonal_(0.0) - (1 - 1 / k) * torch.outer(p, p)
    return float(torch.linalg.eigvalsh(form / torch.outer(p, p).sqrt()).max())


@pytest.mark.parametrize(
    "spec", ["pivotal(budget=1, order='rows')", "conditional_poisson(budget=1)", "sampford(budget=1)"]
)
@given(seeds, st.integers(2, 30), st.floats(0.0, 3.0), st.data())
@settings(max_examples=60)
def test_no_product_loses_by_drawing_without_replacement(
    spec: str, seed: int, n: int, scatter: float, data: st.DataObject
) -> None:
    """All products at once: where no row is certain, the condition is one on the joint inclusion probabilities."""
    scores = (scatter * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).exp()
    k = data.draw(st.integers(1, n - 1))
    assume(float(inclusion(scores, k).probabilities.max()) < 1)
    assert excess(spec, scores, k) < 1e-9


def test_some_product_loses_by_systematic_sampling_in_a_fixed_order() -> None:
    assert excess("systematic(budget=1, order='rows')", torch.ones(4, dtype=torch.float64), 2) > 0.1


@pytest.mark.usefixtures("unchecked")
@given(seeds, st.integers(2, 4), st.data())
@settings(max_examples=8)
def test_pivotal_in_random_order_is_never_above_wta_crs(seed: int, n: int, data: st.DataObject) -> None:
    """By enumeration of all orders and fights."""
    x, dy = problem(seed, n, "scattered")
    k = data.draw(st.integers(1, n - 1))
    found = enumerate_moments(make("pivotal", budget=k), x, dy).variance
    assert found <= float(make("wta_crs", budget=k).variance(x, dy)) + 1e-10 * size(x, dy)


@pytest.mark.parametrize("spec", ["bernoulli(budget=10, reserve=20.0)", "bernoulli(budget=10, reserve=0.0)"])
def test_poisson_sampling_can_be_worse_than_crs(spec: str) -> None:
    x, dy = correlated(30, 1.0)
    assert exact_variance("crs(budget=10)", x, dy) == pytest.approx(0.0, abs=1e-9)
    assert exact_variance(spec, x, dy) > 10.0


def test_priority_sampling_can_be_worse_than_crs() -> None:
    x, dy = correlated(30, 1.0)
    assert priority_variance_of_equal_scores(x, dy, 10) == pytest.approx(30 * 20 / 9)
    assert exact_variance("crs(budget=10)", x, dy) == pytest.approx(0.0, abs=1e-9)


def test_systematic_sampling_in_a_fixed_order_can_be_unlucky() -> None:
    """Every third row points the other way, and every third row is drawn."""
    x, dy = periodic(30, 3)
    unlucky = exact_variance('systematic(budget=10, order="rows")', x, dy)
    assert unlucky > 5 * exact_variance("wta_crs(budget=10)", x, dy)
    assert unlucky > 5 * exact_variance("crs(budget=10)", x, dy)
    assert exact_variance("conditional_poisson(budget=10)", x, dy) < exact_variance("crs(budget=10)", x, dy)


def test_crs_is_not_exact_when_all_rows_are_drawn() -> None:
    x, dy = problem(0, 12, "plain")
    assert exact_variance("crs(budget=12)", x, dy) > 0.01 * float((dy.T @ x).square().sum())
    for spec in ("wta_crs", "pivotal", "sampford", "conditional_poisson", "systematic", "bernoulli", "uniform"):
        assert exact_variance(f"{spec}(budget=12)", x, dy) == pytest.approx(0.0, abs=1e-12)


def test_topk_wins_one_step_and_loses_the_average() -> None:
    x, dy = make_problem("heavy_tailed", 100, 8, 8, generator=torch.Generator().manual_seed(0))
    for spec in ("crs(budget={k})", "wta_crs(budget={k})", "conditional_poisson(budget={k})"):
        error = averaged_error(x, dy, 20, 200, spec)
        assert error.topk[0] < error.unbiased[0]
        assert error.topk[-1] > error.unbiased[-1]


def test_wta_crs_is_below_crs_under_its_condition() -> None:
    """Σ_C p > |C|/k, for p ∝ w; winners that are too light break it and the ordering with it."""
    x, dy = problem(1, 20, "scattered")
    w = joint_norms(x, dy).sort(descending=True).values
    k = 8
    for c in range(k):
        condition = float(w[:c].sum() / w.sum()) > c / k
        below = exact_variance(f"wta_crs(budget={k}, winners={c})", x, dy) < exact_variance("crs(budget=8)", x, dy)
        assert below or not condition


@given(seeds, st.floats(0.0, 2.0))
@settings(max_examples=30)
def test_rows_that_are_alike_make_a_fixed_size_matter(seed: int, scatter: float) -> None:
    """Parallel rows of any sizes: k draws in proportion to size always bring k equal shares of G."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (scatter * torch.randn(20, generator=generator, dtype=torch.float64)).exp()
    x, dy = fanned(sizes, torch.randn(20, 4, generator=generator, dtype=torch.float64), 0.0)
    scores = joint_norms(x, dy)
    for spec in ("crs(budget=6)", "wta_crs(budget=6)", "conditional_poisson(budget=6)"):
        assert float(make(spec).variance(x, dy, scores=scores)) <= 1e-9 * size(x, dy)
    chance = inclusion(scores, 6).probabilities
    independent = float(make("bernoulli(budget=6, reserve=20.0)").variance(x, dy, scores=scores))
    assert independent == pytest.approx(float(((1 / chance - 1) * scores.square()).sum()), rel=1e-6)
    assert independent > 1e-3 * size(x, dy)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", ["crs(budget=2)", "wta_crs(budget=3)"])
@given(seeds, st.lists(st.sampled_from([0.02, 0.5, 1.0, 1.0, 3.0, 40.0]), min_size=4, max_size=4))
@settings(max_examples=20)
def test_any_positive_scores_leave_the_mean_alone(spec: str, seed: int, scores: list[float]) -> None:
    """By enumeration of all outcomes; a score of 0 takes its row out of the mean."""
    x, dy = problem(seed, 4, "plain")
    given_scores = torch.tensor(scores, dtype=torch.float64)
    found = enumerate_moments(make(spec), x, dy, scores=given_scores)
    assert float((found.mean - dy.T @ x).norm()) <= 1e-12 * (size(x, dy) + found.variance)
    given_scores[1] = 0.0
    rest = enumerate_moments(make(spec), x, dy, scores=given_scores).mean + torch.outer(dy[1], x[1])
    assert float((rest - dy.T @ x).norm()) <= 1e-12 * (size(x, dy) + found.variance)


@given(products(), st.integers(1, 4))
def test_the_oracles_scores_are_never_above_row_norms_for_crs(xy: tuple[Tensor, Tensor], k: int) -> None:
    x, dy = xy
    assume(bool((row_norms(x) > 0).all()))
    oracle, blind = (
        float(make("crs", budget=k).variance(x, dy, scores=s)) for s in (joint_norms(x, dy), row_norms(x))
    )
    assert oracle <= blind + 1e-10 * size(x, dy)


@pytest.mark.parametrize("seed", range(4))
def test_the_better_a_design_the_more_it_gains_from_good_scores(seed: int) -> None:
    """Rows of x of one size, norms of dY that scatter: nothing to gain at first, and most by conditional Poisson."""
    generator = torch.Generator().manual_seed(seed)
    x, dy = make_problem("gaussian", 100, 8, 8, generator=generator)
    x, dy = x / row_norms(x).unsqueeze(1), dy / row_norms(dy).unsqueeze(1)
    scale = (1.5 * torch.randn(100, 1, generator=generator, dtype=torch.float64)).exp()
    for scattered in (dy, dy * scale):
        ratios = []
        for spec in ("crs(budget=30)", "wta_crs(budget=30)", "conditional_poisson(budget=30)"):
            blind = float(make(spec).variance(x, scattered))
            ratios.append(blind / float(make(spec).variance(x, scattered, scores=joint_norms(x, scattered))))
        if scattered is dy:
            assert ratios == pytest.approx([1.0] * 3)
        else:
            assert 2 < ratios[0] < ratios[1] < ratios[2]


def mean_over_roundings(function: Callable[[Tensor], Tensor], values: Tensor, step: float) -> Tensor:
    """The mean of a function over all unbiased roundings of every number to a neighbouring multiple of `step`."""
    lower = (values / step).floor() * step
    chance = ((values - lower) / step).reshape(-1)
    mean = torch.zeros_like(function(values))
    for ups in product((0.0, 1.0), repeat=values.numel()):
        up = torch.tensor(ups, dtype=values.dtype)
        probability = torch.where(up > 0, chance, 1 - chance).prod()
        mean += probability * function(lower + step * up.reshape(values.shape))
    return mean


def gradient(function: Callable[[Tensor], Tensor], of: Tensor, outer: Tensor) -> Tensor:
    """Gradient of `<function(of), outer>` by autograd."""
    leaf = of.clone().requires_grad_()
    (found,) = torch.autograd.grad((function(leaf) * outer).sum(), leaf)
    return found


@pytest.mark.parametrize("step", [0.4, 0.8, 1.6])
def test_scores_of_a_softmax_may_not_be_rounded(step: float, generator: torch.Generator) -> None:
    """By torch's own softmax: its gradient is off in the mean; that of the values, linear in P, is not."""
    scores, dp, dout = (torch.randn(1, m, generator=generator, dtype=torch.float64) for m in (4, 4, 2))

    def through(kept: Tensor) -> Tensor:
        return gradient(lambda s: torch.softmax(s, 1), kept, dp)

    def values(kept: Tensor) -> Tensor:
        return kept.T @ dout

    exact = through(scores)
    assert float((mean_over_roundings(through, scores, step) - exact).norm()) > 1e-3 * float(exact.norm())
    p = torch.softmax(scores, 1)
    assert torch.allclose(mean_over_roundings(values, p, step), values(p), atol=1e-14)


@pytest.mark.parametrize("step", [0.4, 0.8, 1.6])
def test_the_input_of_a_norm_may_not_be_rounded(step: float, generator: torch.Generator) -> None:
    """By torch's own RMS norm: its gradient is off in the mean; dW of the next layer, linear in the output, is not."""
    x, dy, dout = (torch.randn(1, m, generator=generator, dtype=torch.float64) for m in (4, 4, 2))

    def norm(kept: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(kept, (4,), eps=1e-2)

    def through(kept: Tensor) -> Tensor:
        return gradient(norm, kept, dy)

    def weight(kept: Tensor) -> Tensor:
        return dout.T @ kept

    exact = through(x)
    assert float((mean_over_roundings(through, x, step) - exact).norm()) > 1e-3 * float(exact.norm())
    assert torch.allclose(mean_over_roundings(weight, norm(x), step), weight(norm(x)), atol=1e-14)
