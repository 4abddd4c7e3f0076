"""Biased baselines: equal to their slow twins, and honest about their bias."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import naive_sketches as naive
from support.strategies import products
from torch import Tensor

from wtacrs.estimators import (
    PAMM,
    Estimator,
    InputError,
    LowRank,
    NoClosedForm,
    VeLoRA,
    joint_norms,
    make,
    saved_bytes,
)
from wtacrs.estimators.core.counter_rng import CounterStream
from wtacrs.estimators.projections import pamm as pamm_module
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.problems import PROBLEMS, make_problem


def problem(n: int, d: int, m: int = 3) -> tuple[Tensor, Tensor]:
    return make_problem("low_rank_mean", n, d, m, generator=torch.Generator().manual_seed(n))


def close(got: Tensor, expected: Tensor, x: Tensor, dy: Tensor, relative: float = 1e-10) -> None:
    torch.testing.assert_close(got, expected, rtol=0.0, atol=relative * float(joint_norms(x, dy).sum()))


def estimate(estimator: Estimator, x: Tensor, dy: Tensor) -> Tensor:
    return estimator.contract(estimator.compress(x), dy)


@given(products(), st.integers(1, 4))
def test_velora_equals_its_twin(xy: tuple[Tensor, Tensor], groups: int) -> None:
    x, dy = xy
    estimator = VeLoRA(groups=min(groups, x.shape[1]))
    rebuilt = torch.tensor(naive.velora(x.tolist(), estimator.groups), dtype=torch.float64)
    close(estimate(estimator, x, dy), dy.T @ rebuilt, x, dy, 1e-9)
    close(estimator.expectation(x, dy), dy.T @ rebuilt, x, dy, 1e-9)
    assert float(estimator.variance(x, dy)) == 0.0


def test_velora_keeps_what_lies_along_the_average() -> None:
    x, dy = torch.tensor([[1.0, 2.0, 2.0, 4.0], [-3.0, -6.0, 4.0, 8.0]]), torch.tensor([[1.0], [2.0]])
    torch.testing.assert_close(estimate(VeLoRA(groups=2), x, dy), dy.T @ x)
    # the average of (2, 1) and (2, −1) is along (1, 0): what lies across it is lost
    x, dy = torch.tensor([[2.0, 1.0], [2.0, -1.0]]), torch.eye(2)
    torch.testing.assert_close(estimate(VeLoRA(groups=1), x, dy), torch.tensor([[2.0, 0.0], [2.0, 0.0]]))


def test_velora_with_a_piece_per_feature_is_exact() -> None:
    x, dy = problem(7, 5)
    close(estimate(VeLoRA(groups=5), x, dy), dy.T @ x, x, dy)


@pytest.mark.parametrize("name", PROBLEMS)
def test_low_rank_states_its_bias(name: str) -> None:
    x, dy = make_problem(name, 9, 5, 3, generator=torch.Generator().manual_seed(4))
    estimator = LowRank(rank=2)
    v = estimator.compress(x).directions
    bias = -(dy.T @ x) @ (torch.eye(5, dtype=torch.float64) - v @ v.T)
    close(estimator.expectation(x, dy) - dy.T @ x, bias, x, dy)
    close(estimate(estimator, x, dy), estimator.expectation(x, dy), x, dy)
    assert enumerate_moments(estimator, x, dy).variance == 0.0


def test_low_rank_is_exact_on_rows_of_that_rank() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(3, 8, generator=generator, dtype=torch.float64)
    dy = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    close(estimate(LowRank(rank=3), x, dy), dy.T @ x, x, dy)
    close(estimate(LowRank(rank=8), x, dy), dy.T @ x, x, dy)


class OfSeed:
    """Choices of one seed."""

    def __init__(self, seed: int) -> None:
        self.key = torch.tensor([seed])

    def seeded(self):
        return self.key, CounterStream(self.key)

    plan = fresh = seeded


@pytest.mark.parametrize("tolerance", [1.0, 0.5, 0.05])
@given(xy=products(), seed=st.integers(0, 2**40), k=st.integers(1, 5))
def test_pamm_equals_its_twin(tolerance: float, xy: tuple[Tensor, Tensor], seed: int, k: int) -> None:
    x, dy = xy
    n = x.shape[0]
    estimator = PAMM(budget=min(k, n), tolerance=tolerance)
    everything = torch.ones(n, dtype=torch.float64)
    saved = estimator.keep(x, everything, OfSeed(seed))
    chosen = naive.subset(seed, 0, [True] * n, min(k, n))
    rebuilt = torch.tensor(naive.pamm(x.tolist(), chosen, tolerance), dtype=torch.float64)
    close(estimator.contract(saved, dy), dy.T @ rebuilt, x, dy, 1e-7)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_pamm_states_its_mean(name: str, k: int) -> None:
    x, dy = make_problem(name, 5, 3, 2, generator=torch.Generator().manual_seed(4))
    for scores in (None, torch.tensor([1.0, 0.0, 2.0, 1.0, 0.0]), torch.zeros(5)):
        found = enumerate_moments(PAMM(budget=k), x, dy, scores=scores)
        close(found.mean, PAMM(budget=k).expectation(x, dy, scores=scores), x, dy)
        assert found.probability == pytest.approx(1.0, abs=1e-12)


def test_enumeration_of_pamm_is_the_plain_average_over_subsets() -> None:
    x, dy = problem(5, 3)
    for tolerance in (1.0, 0.3):
        rebuilt = [naive.pamm(x.tolist(), chosen, tolerance) for chosen in combinations(range(5), 2)]
        each = torch.stack([dy.T @ torch.tensor(rows, dtype=torch.float64) for rows in rebuilt])
        found = enumerate_moments(PAMM(budget=2, tolerance=tolerance), x, dy)
        assert found.outcomes == 10
        close(found.mean, each.mean(0), x, dy)
        assert found.variance == pytest.approx(float((each - each.mean(0)).square().sum()) / 10, rel=1e-9)


def test_pamm_is_biased() -> None:
    """Two orthogonal rows, one representative: the other row is lost."""
    x, dy = torch.eye(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    assert PAMM(budget=1).expectation(x, dy).tolist() == [[0.5, 0.5]]
    dropped = enumerate_moments(PAMM(budget=1, tolerance=0.5), x, dy)
    assert dropped.mean.tolist() == [[1.0, 1.0]]  # the factor β = 2 makes up for what was dropped


def test_pamm_says_where_no_closed_form_is_known() -> None:
    x, dy = problem(5, 3)
    with pytest.raises(NoClosedForm, match="β depends on the draw"):
        PAMM(budget=2, tolerance=0.9).expectation(x, dy)
    with pytest.raises(NoClosedForm):
        PAMM(budget=2).variance(x, dy)


def test_pamm_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, dy = problem(50, 6)
    whole = PAMM(budget=7).compress(x, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(pamm_module, "BLOCK", 20)
    parts = PAMM(budget=7).compress(x, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole.assignment, parts.assignment)
    torch.testing.assert_close(PAMM(budget=7).contract(parts, dy), PAMM(budget=7).contract(whole, dy))
    assert saved_bytes(whole) == 7 * 6 * 8 + 50 * (4 + 8)


def test_pamm_with_fewer_rows_of_positive_score_than_representatives() -> None:
    x, dy = problem(6, 3)
    scores = torch.tensor([0.0, 1.0, 0.0, 0.0, 2.0, 0.0])
    expected = dy[[1, 4]].T @ x[[1, 4]]
    close(PAMM(budget=4).contract(PAMM(budget=4).compress(x, scores=scores), dy), expected, x, dy)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("velora(groups=0)", "velora: groups=0 must be an int ≥ 1"),
        ("velora(groups=2.0)", "groups=2.0"),
        ("pamm(budget=0.5, tolerance=0)", r"pamm: tolerance=0 must be a number in \(0, 1\]"),
        ("pamm(budget=0.5, tolerance=2)", "tolerance=2"),
        ("pamm(budget=2.5)", "budget=2.5"),
    ],
)
def test_refusals(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(spec)


def test_more_pieces_than_features_are_refused() -> None:
    with pytest.raises(InputError, match="groups=5 must be at most the 4 features of x"):
        VeLoRA(groups=5).compress(torch.ones(3, 4))
    for spec in ("velora(groups=2)", "pamm(budget=2)"):
        with pytest.raises(InputError, match="dy must have 3 rows"):
            make(spec).contract(make(spec).compress(torch.ones(3, 4)), torch.ones(4, 2))
