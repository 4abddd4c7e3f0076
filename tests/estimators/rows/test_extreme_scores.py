"""Variances of designs without replacement over hundreds of decades of scores: finite, and those of the law."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.row_plans import row_estimator
from torch import Tensor

from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.rows.conditional_poisson import fitted, tail_probabilities
from wtacrs.estimators.rows.inclusion import inclusion

DESIGNS = ("conditional_poisson(budget={budget})", "sampford(budget={budget})")
MORE = (*DESIGNS, 'pivotal(budget={budget}, order="rows")', "bernoulli(budget={budget}, reserve=0.0)")
# some rows alike, so that there is a draw to be decided; the others anywhere within what a double holds
SCORES = (
    ([1.0, 1.0, 1e-300, 1e-200, 1.0], 2),
    ([1.0, 2.0, 1e-160, 1e-160, 3.0], 2),
    ([1e300, 1.0, 1.0, 1e-290, 1.0], 3),
    ([1e-20, 1.0, 1e-9, 2.0, 1.5, 1e-308], 2),
    ([1e300, 1e-300, 1.0], 2),
    ([1e-237, 4e-15, 1.0, 4e-43, 1e-189], 3),
    ([5e-58, 1e-108, 1.0], 1),
)


def exact_probabilities(scores: list[float], k: int) -> tuple[list[Fraction], int]:
    """π, in rational numbers, and how many rows are certain; 0 < k < n."""
    left, certain = sorted(map(Fraction, scores), reverse=True), 0
    while k > certain and left[0] * (k - certain) > sum(left):
        left.pop(0)
        certain += 1
    mass = sum(left)
    return [min(Fraction(1), Fraction(s) * (k - certain) / mass) if mass else Fraction(1) for s in scores], certain


def sampford_variance(scores: list[float], k: int, pairs: list[Fraction]) -> float:
    """`Σ_S P(S) (Σ_{i∈S} z_i/π_i − Σ z_i)²` of numbers z, by Sampford's definition."""
    pi, _ = exact_probabilities(scores, k)
    sure, tail = [i for i, p in enumerate(pi) if p == 1], [i for i, p in enumerate(pi) if 0 < p < 1]
    law = {
        some: math.prod(pi[i] / (1 - pi[i]) for i in some) * sum(1 - pi[i] for i in some)
        for some in itertools.combinations(tail, k - len(sure))
    }
    return spread_of(law, pi, tail, pairs)


def conditional_poisson_variance(scores: Tensor, k: int, pairs: list[Fraction]) -> float:
    """The same by Hájek's definition, from the working probabilities as they are."""
    target = inclusion(scores, k)
    tail = target.tail.nonzero().flatten().tolist()
    fit = fitted(tail_probabilities(target), k - target.taken)
    free = [i for i in tail if fit.present[i] > 0 and fit.absent[i] > 0]
    sure = [i for i in tail if float(fit.absent[i]) == 0]
    odds = {i: Fraction(float(fit.present[i])) / Fraction(float(fit.absent[i])) for i in free}
    law = {
        some: Fraction(math.prod(odds[i] for i in some))
        for some in itertools.combinations(free, k - int(target.taken) - len(sure))
    }
    total = sum(law.values())
    pi = [
        sum((chance for some, chance in law.items() if i in some), Fraction(0)) / total for i in range(len(scores))
    ]
    return spread_of(law, pi, [i for i in free if pi[i] > 0], pairs)


def spread_of(
    law: dict[tuple[int, ...], Fraction], pi: list[Fraction], tail: list[int], pairs: list[Fraction]
) -> float:
    total, mean = sum(law.values()), sum((pairs[i] for i in tail), Fraction(0))
    if not total:
        return 0.0
    spread = sum(
        (
            chance * (sum((pairs[i] / pi[i] for i in some), Fraction(0)) - mean) ** 2
            for some, chance in law.items()
        ),
        Fraction(0),
    )
    return float(spread / total)


@pytest.mark.parametrize("spec", DESIGNS)
@pytest.mark.parametrize(("scores", "k"), SCORES)
@pytest.mark.parametrize("signs", [(1.0, 1.0), (1.0, -1.0)])
def test_the_variance_is_that_of_all_samples(
    spec: str, scores: list[float], k: int, signs: tuple[float, float]
) -> None:
    """Rows of one column in proportion to their scores; right to rounding beside `(Σ|z|)²` of the rows of the tail."""
    scale = max(scores)
    rows = [s / scale * signs[i % 2] for i, s in enumerate(scores)]
    x = torch.tensor(rows, dtype=torch.float64).unsqueeze(1)
    given_scores = torch.tensor(scores, dtype=torch.float64)
    found = float(row_estimator(spec, k).variance(x, torch.ones_like(x), scores=given_scores))
    pairs = [Fraction(row) for row in rows]
    if spec.startswith("sampford"):
        expected = sampford_variance(scores, k, pairs)
    else:
        expected = conditional_poisson_variance(sampling_scores(x, given_scores), k, pairs)
    pi, _ = exact_probabilities(scores, k)
    size = float(sum((abs(z) for z, p in zip(pairs, pi, strict=True) if p < 1), Fraction(0)))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-13 * size**2 + 1e-300)


def test_the_underflow_of_pairs_would_be_seen() -> None:
    """π_i π_j of the first case is 0 in doubles, where the ratio π_ij/(π_i π_j) is not."""
    p = inclusion(torch.tensor(SCORES[0][0], dtype=torch.float64), 2).probabilities
    assert float(p[2] * p[3]) == 0.0
    design = row_estimator(DESIGNS[0], 2)
    ratio = design.joint(p, 2).ratios[2, 3]  # type: ignore[attr-defined]
    # odds a, b beside three of 2: π_2 = 6a/12 and π_23 = ab/12 to the first order
    assert float(ratio) == pytest.approx(1 / 3, rel=1e-12)


@pytest.mark.parametrize("spec", MORE)
@given(st.lists(st.floats(-300.0, 300.0), min_size=2, max_size=9), st.data())
@settings(max_examples=40)
def test_any_scores_have_a_finite_variance(spec: str, decades: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(decades) - 1))
    scores = torch.tensor([10.0**decade for decade in decades], dtype=torch.float64)
    x = (scores / scores.max()).unsqueeze(1)
    found = float(row_estimator(spec, k).variance(x, torch.ones_like(x), scores=scores))
    assert math.isfinite(found)
    assert found > -1e-12 * float(x.sum()) ** 2
