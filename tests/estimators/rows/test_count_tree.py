"""The tree of counts: the law of every sample, exact inclusion probabilities at all sizes, and wrong trees are seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.false_alarms import share
from support.row_plans import checked, row_estimator
from torch import Tensor

from wtacrs.estimators import RowEstimator, make
from wtacrs.estimators.rows import conditional_poisson as module
from wtacrs.estimators.rows import count_tree
from wtacrs.estimators.rows.conditional_poisson import ConditionalPoisson, fitted, tail_probabilities
from wtacrs.estimators.rows.count_tree import Level, laws_of, messages, sampled, splits
from wtacrs.estimators.rows.inclusion import inclusion
from wtacrs.estimators.rows.poisson_binomial import at_size, few_messages, sizes_of
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.enumeration.plans import listed_plans

DESIGNS = ("conditional_poisson(budget={budget})", "sampford(budget={budget})")
# six rows are no power of two, five draw one or all but one, ties, zeros, a take-all row, probabilities near 0 and 1
CASES = (
    ([2.0, 5.0, 7.0, 1.0, 6.0, 6.5], 3),
    ([2.0, 5.0, 7.0, 1.0, 6.0], 1),
    ([2.0, 3.0, 3.5, 1.0, 2.5], 4),
    ([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0], 2),
    ([0.0, 3.0, 0.0, 1.0, 2.0, 0.0, 2.0, 1.0, 0.0], 2),
    ([40.0, 3.0, 2.0, 1.0, 2.0], 3),
    ([1.0, 1e-9, 1.0, 1e-9, 1.0 - 1e-9], 2),
)


def stated_law(spec: str, scores: Tensor, k: int) -> dict[frozenset[int], float]:
    """P(S) of every sample, from its definition; rows that are certain are in all of them."""
    target = inclusion(scores, k)
    tail = target.tail.nonzero().flatten().tolist()
    size = k - int(target.taken)
    certain = [i for i, p in enumerate(target.probabilities.tolist()) if p > 0 and i not in tail]
    if spec.startswith("sampford"):
        p = target.probabilities.tolist()
        odds = {i: p[i] / (1 - p[i]) for i in tail}
        marks = [1 - chance for chance in p]
    else:
        fit = fitted(tail_probabilities(target), k - target.taken)
        odds = dict(enumerate((fit.present / fit.absent).tolist()))
        marks = [1.0 / size] * len(scores)  # sums to 1 for every sample
    shares = {
        frozenset([*certain, *some]): math.prod(odds[i] for i in some) * math.fsum(marks[i] for i in some)
        for some in itertools.combinations(tail, size)
    }
    return {sample: chance / math.fsum(shares.values()) for sample, chance in shares.items()}


def listed_law(estimator: RowEstimator, scores: Tensor) -> dict[frozenset[int], float]:
    """P(S) of every sample by enumeration of the cells between cuts."""
    law: dict[frozenset[int], float] = {}
    for plan, probability in listed_plans(estimator, scores, 10_000):
        sample = frozenset(plan.indices[plan.weights > 0].tolist())
        law[sample] = law.get(sample, 0.0) + probability
    return law


def difference(spec: str, scores: Tensor, k: int) -> float:
    stated, listed = stated_law(spec, scores, k), listed_law(row_estimator(spec, k), scores)
    return max(abs(stated.get(sample, 0.0) - listed.get(sample, 0.0)) for sample in {*stated, *listed})


@pytest.mark.parametrize("spec", DESIGNS)
@pytest.mark.parametrize(("scores", "k"), CASES)
def test_every_sample_has_its_probability(
    spec: str, scores: list[float], k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any working probabilities: those of one step are as good, and found sooner."""
    monkeypatch.setattr(module, "_steps", lambda n: 1)
    assert difference(spec, checked(scores), k) < 1e-11


def left_alone(level: Level, counts: count_tree.Counts) -> Tensor:
    """The left child's law, whatever the right one has: it may have too few rows."""
    shares = SOUND_SHARES(level, counts)
    laws = level.laws[0, 0::2]
    plain = torch.where(shares[:, : laws.shape[1]] > 0, laws, 0.0)
    return torch.cat([plain, shares[:, laws.shape[1] :]], 1)


def mark_lost(level: Level, counts: count_tree.Counts) -> Tensor:
    """The special row is left on the right."""
    shares = SOUND_SHARES(level, counts)
    return torch.cat([shares[:, : shares.shape[1] // 2], torch.zeros_like(shares[:, shares.shape[1] // 2 :])], 1)


SOUND_SHARES = count_tree._shares


@pytest.mark.parametrize(
    ("spec", "wrong"), [(DESIGNS[0], left_alone), (DESIGNS[1], left_alone), (DESIGNS[1], mark_lost)]
)
def test_a_wrong_division_is_seen(
    spec: str, wrong: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_tree, "_shares", wrong)
    assert difference(spec, checked(CASES[0][0]), 3) > 1e-3


def probabilities_of(present: Tensor, absent: Tensor, size: int) -> Tensor:
    without, given = messages(laws_of(present, absent), torch.tensor(size), present.shape[0]).unbind(1)
    return present * given / (present * given + absent * without)


def symmetric(values: list[float], degree: int) -> float:
    return math.fsum(math.prod(some) for some in itertools.combinations(values, degree))


@given(st.lists(st.floats(-21.0, 21.0), min_size=2, max_size=9), st.data())
def test_inclusion_probabilities_by_brute_force(theta: list[float], data: st.DataObject) -> None:
    """From working probabilities between 1e-9 and 1 − 1e-9, to full relative precision."""
    size = data.draw(st.integers(1, len(theta) - 1))
    t = torch.tensor(theta, dtype=torch.float64)
    odds = t.exp().tolist()
    whole = symmetric(odds, size)
    expected = [odds[i] * symmetric(odds[:i] + odds[i + 1 :], size - 1) / whole for i in range(len(theta))]
    assert probabilities_of(t.sigmoid(), (-t).sigmoid(), size).tolist() == pytest.approx(expected, rel=1e-12)


def families(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    normal = torch.randn(n, generator=generator, dtype=torch.float64)
    return {
        "near": (0.3 * normal).exp(),
        "spread": (3 * normal).exp(),
        "ties and zeros": (normal > 0).double() * (1 + (normal > 1).double()),
        "far": torch.where(normal > 0, 1.0, 1e-9) * (1 + 1e-3 * normal.abs()),
    }


@pytest.mark.parametrize("family", ["near", "spread", "ties and zeros", "far"])
@pytest.mark.parametrize("n", [65, 130, 512])
def test_inclusion_probabilities_equal_those_of_the_characteristic_function(
    family: str, n: int, generator: torch.Generator
) -> None:
    scores = families(n, generator)[family]
    scores = scores / scores.max()
    for k in (1, 2, n // 3, int((scores > 0).sum()) - 1):
        target = inclusion(scores, k)
        size = k - target.taken
        fit = fitted(tail_probabilities(target), size)
        sizes = sizes_of(fit.present, fit.absent)
        spectrum = at_size(sizes, size)
        expected = (sizes.ratios @ spectrum).real / spectrum.real.sum()
        torch.testing.assert_close(fit.probabilities, expected, rtol=1e-9, atol=1e-15)
        assert float(fit.probabilities.sum()) == pytest.approx(int(size), rel=1e-12)


def test_cut_laws_are_those_of_the_binomial() -> None:
    """Equal rows: every number that is kept, far from the mean too, and the inclusion probability."""
    n, p = 2048, 0.3
    present = torch.full((n,), p, dtype=torch.float64)
    levels = laws_of(present, 1 - present)
    leaves = 1
    for level in levels:
        count = (level.first[:1] + torch.arange(level.laws.shape[2])).double()
        log = (
            math.lgamma(leaves + 1)
            - torch.lgamma(count + 1)
            - torch.lgamma(leaves - count + 1)
            + count * math.log(p)
            + (leaves - count) * math.log1p(-p)
        )
        near = (count - p * leaves).abs() <= 3 * math.sqrt(leaves)
        torch.testing.assert_close(level.laws[0, 0][near], log.exp()[near], rtol=1e-10, atol=0)
        assert float(level.laws.sum(2).min()) == pytest.approx(1.0, abs=1e-12)
        leaves *= 2
    assert levels[-1].laws.shape[2] < n // 4
    found = probabilities_of(present, 1 - present, 600)
    torch.testing.assert_close(found, torch.full_like(found, 600 / n), rtol=1e-12, atol=0)


def test_a_law_cut_too_short_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_tree, "_width", lambda leaves: min(leaves + 1, 2 * math.ceil(math.sqrt(leaves)) + 1))
    present = torch.linspace(0.1, 0.5, 512, dtype=torch.float64)
    size = round(float(present.sum()))
    sizes = sizes_of(present, 1 - present)
    spectrum = at_size(sizes, torch.tensor(size))
    expected = (sizes.ratios @ spectrum).real / spectrum.real.sum()
    assert float((probabilities_of(present, 1 - present, size) / expected - 1).abs().max()) > 1e-6


@pytest.mark.parametrize("block", [1, 3, 8])
def test_correlations_in_blocks_are_plain_ones(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    several = torch.rand(3, 2, 21, generator=generator, dtype=torch.float64)
    one = torch.rand(3, 50, generator=generator, dtype=torch.float64)
    monkeypatch.setattr(count_tree, "_BLOCK", block)
    plain = (one.unfold(1, 21, 1).unsqueeze(1) * several.unsqueeze(2)).sum(3)
    torch.testing.assert_close(count_tree._correlated(several, one), plain, rtol=1e-13, atol=0)
    monkeypatch.setattr(count_tree, "_SMALL", 30)
    torch.testing.assert_close(count_tree._correlated(several, one), plain, rtol=1e-13, atol=0)


LEVEL = share("tree of counts")
DRAWS = 1_500


def drawn_counts(n: int, size: int) -> Tensor:
    """How often each number of the sample lay among the first rows, by DRAWS draws."""
    present = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    present = present * (size / present.sum())
    levels = laws_of(present, 1 - present)
    generator = torch.Generator().manual_seed(5)
    numbers = torch.rand(DRAWS, splits(n), generator=generator, dtype=torch.float64)
    first = [int(sampled(levels, torch.tensor(size), u, n)[:7].sum()) for u in numbers]
    return torch.bincount(torch.tensor(first), minlength=8).double()


def p_value(found: Tensor, n: int, size: int) -> float:
    """χ² of the number of drawn rows among the first seven, by the characteristic function; cells of 5 or more."""
    present = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    present = present * (size / present.sum())
    few, rest = laws_of(present[:7], 1 - present[:7])[-1].laws[0, 0], present[7:]
    sizes = sizes_of(rest, 1 - rest)
    others = [float(at_size(sizes, torch.tensor(size - m)).real.sum()) for m in range(8)]
    expected = few[:8] * torch.tensor(others, dtype=torch.float64)
    expected = expected / expected.sum() * DRAWS
    large = expected >= 5
    found, expected = (torch.cat([t[large], t[~large].sum().reshape(1)]) for t in (found, expected))
    keep = expected > 0
    chi = ((found - expected).square() / torch.where(keep, expected, 1.0))[keep].sum()
    freedom = torch.tensor(float(keep.sum()) - 1, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom / 2, chi / 2))


def test_drawn_samples_follow_the_law() -> None:
    """1,500 draws of 40 of 120 rows; not a power of two, and laws that are cut."""
    assert p_value(drawn_counts(120, 40), 120, 40) > LEVEL


def test_draws_from_a_wrong_tree_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_tree, "_shares", left_alone)
    assert p_value(drawn_counts(120, 40), 120, 40) < LEVEL


@settings(max_examples=30)
@given(
    st.integers(66, 300),
    st.sampled_from(["near", "spread", "ties and zeros", "far"]),
    st.integers(0, 2**31),
    st.data(),
)
def test_any_scores_give_distinct_rows_and_weights(n: int, family: str, seed: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = families(n, generator)[family]
    scores = checked((scores * 10.0 ** data.draw(st.sampled_from([0, 200, -200]))).tolist())
    k = data.draw(st.sampled_from([1, 2, n // 2, n - 1]))
    end = data.draw(st.sampled_from([0.0, 0.5, math.nextafter(1.0, 0.0), None]))
    for spec in DESIGNS:
        estimator = row_estimator(spec, k)
        numbers = torch.rand(estimator.uniforms(n), generator=generator, dtype=torch.float64)
        plan = estimator.plan(scores, numbers if end is None else torch.full_like(numbers, end))
        used = plan.indices[plan.weights > 0]
        assert used.unique().numel() == used.numel() == min(k, int((scores > 0).sum()))
        assert bool((scores[used] > 0).all())
        assert bool((plan.weights[plan.weights > 0] >= 1).all())
        assert bool(plan.weights.isfinite().all())


@pytest.mark.parametrize(("n", "k"), [(20, 5), (64, 20), (200, 30), (1000, 300), (5000, 100)])
def test_inclusion_probabilities_come_near_those_asked_for(n: int, k: int, generator: torch.Generator) -> None:
    """As the docstring says: what the search leaves."""
    estimator = ConditionalPoisson(budget=k)
    for name in ("near", "spread"):
        target = inclusion(families(n, generator)[name], k)
        p = target.probabilities
        spread = float((p * (1 - p)).sum())
        assert n <= 64 or spread > 3
        allowed = 1e-8 if n <= 64 else 1e-6 if spread > 20 else 1e-4
        found = estimator.included(target, k)
        assert float((found / p - 1)[p > 0].abs().max()) < allowed


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "spec", ["conditional_poisson(budget=2)", 'mixed_precision_rows(slots=2, design="conditional_poisson")']
)
@pytest.mark.parametrize("weighted", [True, False])
def test_estimates_are_unbiased_whatever_the_search_leaves(
    spec: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no step at all; weights of the probabilities that were asked for would be biased then."""
    monkeypatch.setattr(module, "_steps", lambda n: 0)
    if not weighted:
        monkeypatch.setattr(module, "_with_certain", lambda target, fit: target.probabilities)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    x = x * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)[:, None]
    dy = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    estimator = make(spec)
    found = enumerate_moments(estimator, x, dy)
    bias = float((found.mean - dy.T @ x).norm()) / float((dy.T @ x).norm())
    if weighted:
        assert bias < 1e-10
        assert found.variance == pytest.approx(float(estimator.variance(x, dy)), rel=1e-9)
    else:
        assert bias > 1e-4


def nearly_certain(n: int, generator: torch.Generator) -> list[tuple[Tensor, int]]:
    """Scores whose mass lies nearly all on as many rows as are drawn, or falls by orders from row to row."""
    near = 1 + 0.05 * torch.rand(n, generator=generator, dtype=torch.float64)
    row, cases = torch.arange(n), []
    for large in (3, n // 10):
        cases += [(torch.where(row < large, near, small * near), large) for small in (1e-2, 1e-4, 1e-9)]
    return [*cases, *((torch.logspace(0, -decades, n, dtype=torch.float64), 8) for decades in (6, 60, 120))]


def farthest(n: int, generator: torch.Generator) -> float:
    """Largest relative distance of π from what was asked for, over rows that are not certain."""
    found = [0.0]
    for scores, k in nearly_certain(n, generator):
        target = inclusion(scores / scores.max(), k)
        p = tail_probabilities(target)
        assert float((p * (1 - p)).sum()) > 1e-11
        free = (p > 0) & (p < 1)
        found.append(float((fitted(p, k - target.taken).probabilities / p - 1)[free].abs().max()))
    return max(found)


@pytest.mark.parametrize(("n", "allowed"), [(24, 1e-4), (64, 1e-4), (65, 0.1), (200, 0.1), (1000, 0.1)])
def test_inclusion_probabilities_come_near_where_nearly_all_mass_is_certain(
    n: int, allowed: float, generator: torch.Generator
) -> None:
    assert farthest(n, generator) < allowed


def test_a_start_for_large_spreads_alone_leaves_them_far_away(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.setattr(module, "_start", lambda inside, spread: -inside / spread.clamp(min=1.0))
    assert farthest(200, generator) > 1.0


@given(st.lists(st.floats(-21.0, 21.0), min_size=2, max_size=9), st.data())
def test_few_rows_by_their_characteristic_function(theta: list[float], data: st.DataObject) -> None:
    """Both of the numbers of a row are those of the tree, to rounding beside 1."""
    size = torch.tensor(data.draw(st.integers(0, len(theta))))
    t = torch.tensor(theta, dtype=torch.float64)
    found = torch.stack(few_messages(t.sigmoid(), (-t).sigmoid(), size), 1)
    law = [
        laws_of(*(torch.cat([p[:i], p[i + 1 :]]) for p in (t.sigmoid(), (-t).sigmoid())))[-1]
        for i in range(len(t))
    ]
    for i, level in enumerate(law):
        chances = torch.nn.functional.pad(level.laws[0, 0], (1, len(t) + 1))
        expected = torch.stack([chances[size + 1], chances[size]])
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-14)
