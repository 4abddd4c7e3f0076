"""A mask is a hint: the mean is exact if it is wrong, and it costs at most 1/(1 − δ) where it is right."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.strategies import score_lists
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from wtacrs.estimators import Estimator, InputError, RowEstimator, available, lookup, make, row_norms
from wtacrs.estimators.core.mask_floor import MASK_FLOOR, scores_with_floor
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.sizing import rows_kept, sized
from wtacrs.estimators.rows.inclusion import Inclusion, inclusion
from wtacrs.validation.enumeration.exact_moments import can_enumerate, enumerate_moments

SHARES = (MASK_FLOOR, 0.1, 0.5, 0.9)
ROUNDING = 1e-9
# second moments of the rows grow by at most 1/(1 − δ), by proof
BOUNDED = (
    "crs(budget={k})",
    "wta_crs(budget={k})",
    "wta_crs(budget={k}, winners=0)",
    "bernoulli(budget={k}, reserve=20.0)",
    "systematic(budget={k})",
    "pivotal(budget={k})",
    "conditional_poisson(budget={k})",
    "sampford(budget={k})",
)
# exact and vcas look at no scores
TRAITS = {name: lookup(name).traits for name in available()}
UNBIASED = tuple(name for name, traits in TRAITS.items() if traits.unbiased and traits.leaves_out_zeros)
WITHOUT_LIST = ("prac", "priority", "subsampled")  # their closed forms stand in


def vector(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def included(scores: Tensor, k: int) -> Inclusion:
    """Inclusion of the rows of positive score, k of them."""
    return inclusion(sampling_scores(scores.new_zeros(scores.shape[0], 1), scores), k)


@st.composite
def hints(draw: st.DrawFn, min_rows: int = 1) -> tuple[Tensor, Tensor]:
    """Scores with at least one positive live row, and a mask."""
    scores = draw(score_lists(min_rows=min_rows))
    mask = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    assume(any(live and score > 0 for live, score in zip(mask, scores, strict=True)))
    return vector(scores), torch.tensor(mask)


# the rule


def twin(scores: list[float], mask: list[bool], kept: int | None, share: float) -> Fraction | None:
    """N f / largest in exact arithmetic, by the words of the docstring; None without a masked row of positive score."""
    live = sorted((Fraction(s) for s, m in zip(scores, mask, strict=True) if m and s > 0), reverse=True)
    if not any(s > 0 and not m for s, m in zip(scores, mask, strict=True)):
        return None
    c = 0
    if kept is not None and len(live) <= kept:
        c = len(live) - 1
    elif kept is not None:
        while live[c] * (kept - c) >= sum(live[c:]):
            c += 1
    ratio = Fraction(share)
    return ratio / (1 - ratio) * sum(live[c:]) / live[0]


# sums of these are exact, so that rounding decides no tie
whole = st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0, 20.0, 2.0**40]), min_size=1, max_size=10)


@given(whole, st.data())
def test_equal_to_the_twin(scores: list[float], data: st.DataObject) -> None:
    mask = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    assume(any(m and s > 0 for s, m in zip(scores, mask, strict=True)))
    kept, share = data.draw(st.one_of(st.none(), st.integers(1, len(scores)))), data.draw(st.sampled_from(SHARES))
    found = scores_with_floor(vector(scores), torch.tensor(mask), kept, share)
    live, masked = found[torch.tensor(mask)], found[~torch.tensor(mask)]
    largest = max(s for s, m in zip(scores, mask, strict=True) if m)
    assert live.tolist() == [s / largest for s, m in zip(scores, mask, strict=True) if m]
    floored = [s > 0 for s, m in zip(scores, mask, strict=True) if not m]
    expected = twin(scores, mask, kept, share)
    if expected is not None:
        each = float(expected / sum(floored))
        assert masked.tolist() == pytest.approx([each if f else 0.0 for f in floored], rel=1e-12, abs=0)


# what it costs and what it gives


@given(hints(min_rows=2), st.sampled_from(SHARES), st.data())
def test_live_rows_keep_their_chance_and_masked_rows_have_one(
    hint: tuple[Tensor, Tensor], share: float, data: st.DataObject
) -> None:
    scores, mask = hint
    n = scores.shape[0]
    k = data.draw(st.integers(1, n - 1))
    live, masked = mask & (scores > 0), ~mask & (scores > 0)
    alone = included(torch.where(mask, scores, 0.0), k)
    found = included(scores_with_floor(scores, mask, k, share), k)
    pi = found.probabilities
    assert (pi[live] >= (1 - share) * alone.probabilities[live] * (1 - ROUNDING)).all()
    assert (pi[~live & ~masked] == 0).all()
    p, others = int(live.sum()), int(masked.sum())
    if p < k and share <= 0.5:
        assert (pi[live] >= 1 - ROUNDING).all()
    if others:
        drawn = k - min(int(alone.taken), k - 1) if p > k else max(k - p, 1)
        least = min(others, k - p) if p < k else min(others, share)  # δ (k − c), c at most k − 1
        assert float(pi[masked].sum()) >= least * (1 - ROUNDING)
        if p > k and not at_the_threshold(scores[live].tolist(), k):
            assert float(pi[masked].sum()) >= min(others, share * drawn) * (1 - ROUNDING)


def at_the_threshold(live: list[float], k: int) -> bool:
    """Whether a row has π = 1 without being larger than the threshold, so that C may hold it or not."""
    left, rows = sorted(map(Fraction, live), reverse=True), k
    while left and rows > 0 and left[0] * rows > sum(left):
        left.pop(0)
        rows -= 1
    return bool(left) and left[0] * rows >= sum(left) * Fraction(1 - 1e-9)


@pytest.mark.parametrize("spec", BOUNDED)
@given(hints(min_rows=2), st.sampled_from(SHARES), st.data())
def test_no_second_moment_grows_beyond_the_bound(
    spec: str, hint: tuple[Tensor, Tensor], share: float, data: st.DataObject
) -> None:
    """`E Σ weight²` of every live row: Σ_live w² of it is the second moment, for any w."""
    scores, mask = hint
    n = scores.shape[0]
    k = data.draw(st.integers(1, n - 1))
    estimator = make(spec.format(k=k))
    assert isinstance(estimator, RowEstimator)
    zeros, live = scores.new_zeros(n, 1), mask & (scores > 0)
    before = estimator.weight_squares(sampling_scores(zeros, torch.where(mask, scores, 0.0)))[live]
    after = estimator.weight_squares(sampling_scores(zeros, scores_with_floor(scores, mask, k, share)))[live]
    assert (after <= before / (1 - share) * (1 + ROUNDING)).all()


def test_a_share_of_all_scores_would_be_paid_without_bound() -> None:
    """One row of 10⁶ beside 19 of 1, 20 masked: the bound of the tail's floor, and what a plain one costs."""
    scores, mask = torch.ones(40, dtype=torch.float64), torch.arange(40) < 20
    scores[0] = 1e6
    before = 1 / included(torch.where(mask, scores, 0.0), 10).probabilities[1]
    tail, plain = (
        float(1 / included(scores_with_floor(scores, mask, kept), 10).probabilities[1] / before)
        for kept in (10, None)
    )
    assert 1 < tail <= (1 + ROUNDING) / (1 - MASK_FLOOR)
    assert plain > 100


def test_the_optimal_rule_can_pay_more_where_nearly_all_rows_are_kept() -> None:
    """What the docstring excepts: p = k + 1 equal rows."""
    scores, mask = torch.ones(200, dtype=torch.float64), torch.arange(200) < 101
    zeros = scores.new_zeros(200, 1)
    floored = sampling_scores(zeros, scores_with_floor(scores, mask, 100))
    growth = {}
    for rule in ("paper", "optimal"):
        estimator = make("wta_crs", budget=100, winners=rule)
        assert isinstance(estimator, RowEstimator)
        alone = estimator.weight_squares(sampling_scores(zeros, torch.where(mask, scores, 0.0)))
        growth[rule] = float((estimator.weight_squares(floored) / alone)[mask].max())
    assert growth["paper"] <= (1 + ROUNDING) / (1 - MASK_FLOOR)
    assert growth["optimal"] > 1.5


# the mean


def random_hint(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """x and dY of four rows, one of them large, and a mask that is wrong in one row at least."""
    generator = torch.Generator().manual_seed(seed)
    x, dy = (torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    x[seed % 4] *= 10.0
    mask = torch.rand(4, generator=generator) < 0.5
    mask[seed % 3], mask[3] = True, False
    return x, dy, mask


def smallest(name: str) -> Estimator:
    inner = "(rows=wta_crs)" if name in ("control_variate", "hadamard_rotation", "quantized_rows") else ""
    inner = "(of=wta_crs)" if name == "subsampled" else inner
    return sized(name + inner, 1 if name in ("gaussian_sketch", "xconv") else 2)


def mean(estimator: Estimator, x: Tensor, dy: Tensor, scores: Tensor) -> Tensor:
    if estimator.name in WITHOUT_LIST:
        return estimator.expectation(x, dy, scores=scores)
    return enumerate_moments(estimator, x, dy, scores=scores).mean


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_is_exact_under_a_wrong_mask(name: str) -> None:
    """Every unbiased estimator that is registered, all outcomes; with score 0 on masked rows the same assertion fails."""
    estimator = smallest(name)
    assert (can_enumerate(estimator) is None) == (name not in WITHOUT_LIST)
    for seed in range(3):
        x, dy, mask = random_hint(seed)
        size = float((row_norms(x) * row_norms(dy)).sum())
        floored = scores_with_floor(row_norms(x), mask, rows_kept(estimator, 4))
        exact = dy.T @ x
        assert float((mean(estimator, x, dy, floored) - exact).norm()) <= 1e-10 * size
        left_out = torch.where(mask, row_norms(x), 0.0)
        assert float((mean(estimator, x, dy, left_out) - exact).norm()) >= 1e-3 * size


# edges


@given(hints(), st.one_of(st.none(), st.integers(1, 12)), st.sampled_from([2.0**-500, 2.0**500]))
def test_a_common_factor_changes_nothing(hint: tuple[Tensor, Tensor], kept: int | None, factor: float) -> None:
    scores, mask = hint
    scores = scores / scores.amax()
    found = scores_with_floor(scores, mask, kept)
    assert torch.equal(scores_with_floor(scores * factor, mask, kept), found)


@pytest.mark.parametrize("kept", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("scale", [1e-308, 5e-324, 1.0, 1e307, 1.7e308])
def test_every_scale_gives_finite_positive_scores(scale: float, kept: int | None) -> None:
    scores, mask = torch.full((4,), scale, dtype=torch.float64), torch.tensor([True, True, True, False])
    found = scores_with_floor(scores, mask, kept)
    assert found[:3].tolist() == [1.0, 1.0, 1.0]
    assert 0 < float(found[3]) < math.inf


def test_a_tail_that_underflows_leaves_masked_rows_in_reach() -> None:
    scores, mask = vector([1.0, 1e-310, 1e-310, 1.0]), torch.tensor([True, True, True, False])
    assert float(scores_with_floor(scores, mask, 2)[3]) > 0


def test_without_masked_rows_nothing_changes_but_the_scale() -> None:
    scores = vector([4.0, 0.0, 2.0, 0.0])
    for mask in ([True] * 4, [True, False, True, False]):
        assert scores_with_floor(scores, torch.tensor(mask), 2).tolist() == [1.0, 0.0, 0.5, 0.0]


def test_without_a_live_score_masked_rows_keep_theirs() -> None:
    scores = vector([0.0, 3.0, 5.0])
    for mask in ([False] * 3, [True, False, False]):
        assert torch.equal(scores_with_floor(scores, torch.tensor(mask), 2), scores)
    nothing = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(scores_with_floor(nothing, torch.tensor([True, False, True]), 1), nothing)
    empty = scores_with_floor(nothing[:0], torch.tensor([], dtype=torch.bool), None)
    assert empty.shape == (0,)


def test_one_live_row_stays_certain() -> None:
    scores, mask = torch.ones(5, dtype=torch.float64), torch.tensor([False, True, False, False, False])
    found = included(scores_with_floor(scores, mask, 2), 2).probabilities
    assert found.tolist() == pytest.approx([0.25, 1.0, 0.25, 0.25, 0.25])
    alone = included(scores_with_floor(scores, mask, 1), 1).probabilities
    assert alone[1] == pytest.approx(1 - MASK_FLOOR)
    assert alone[0] == pytest.approx(MASK_FLOOR / 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("live", [True, False])
def test_a_score_that_is_not_finite_is_not_hidden(bad: float, live: bool) -> None:
    found = scores_with_floor(vector([1.0, 2.0, bad]), torch.tensor([True, True, live]), 2)
    assert not found.isfinite().all()
    with pytest.raises(InputError, match="finite"):
        make("crs(budget=2)").compress(torch.ones(3, 2), scores=found)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask": torch.ones(3)}, "mask must be boolean"),
        ({"mask": torch.ones(2, dtype=torch.bool)}, r"mask must be boolean of shape \[3\].*\[2\]"),
        ({"kept": 0}, "kept=0 must be"),
        ({"share": 0.0}, r"share=0.0 must be a number in \(0, 1\)"),
        ({"share": 1.0}, "share=1.0 must be"),
        ({"share": math.nan}, "share=nan must be"),
    ],
)
def test_misuse_names_the_argument(changed: dict[str, object], message: str) -> None:
    arguments = {"scores": torch.ones(3).double(), "mask": torch.ones(3, dtype=torch.bool), "kept": 1} | changed
    with pytest.raises(InputError, match=message):
        scores_with_floor(**arguments)  # type: ignore[arg-type]


# no synchronisation


def test_works_without_values() -> None:
    """FakeTensorMode raises on any `.item()`, and so on any host synchronisation."""
    with FakeTensorMode():
        scores, mask = torch.empty(50, dtype=torch.float64), torch.empty(50, dtype=torch.bool)
        for kept in (None, 1, 50):
            assert scores_with_floor(scores, mask, kept).shape == (50,)


COMPILED = """
import torch
from wtacrs.estimators import make
from wtacrs.estimators.core.mask_floor import scores_with_floor
from wtacrs.estimators.core.sizing import exact_at, rows_kept
for spec in ("wta_crs(budget=0.3)", "control_variate(rows=quantized_rows(rows=pivotal(budget=0.3)))", "prac(rank=4)"):
    torch._dynamo.reset()
    estimator = make(spec)

    def asked(scores, mask):
        kept = scores.shape[0] if exact_at(estimator, scores.shape[0]) else rows_kept(estimator, scores.shape[0])
        return scores_with_floor(scores, mask, kept)

    compiled = torch.compile(asked, fullgraph=True, backend="aot_eager")
    for n in (50, 70, 71):
        scores, mask = torch.rand(n, dtype=torch.float64), torch.rand(n) < 0.6
        torch.testing.assert_close(compiled(scores, mask), asked(scores, mask), rtol=1e-12, atol=0)
"""


def test_compiles_without_a_graph_break() -> None:
    """In a process of its own: the signature checks of the tests are nothing to compile. Lengths become dynamic."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.cuda
def test_cuda_never_waits_for_the_host() -> None:
    scores, mask = torch.rand(4096, device="cuda").double(), torch.rand(4096, device="cuda") < 0.5
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = scores_with_floor(scores, mask, 1000)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.shape == (4096,)
