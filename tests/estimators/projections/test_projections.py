"""Projections of the feature axis: equal to explicit matrices, exact moments, no bias from rounding the basis."""

from __future__ import annotations

import math

import pytest
import torch
from support import naive_sketches as naive
from support.strategies import DTYPES
from torch import Tensor

from wtacrs.estimators import PRAC, InputError, RandomProjection, joint_norms, make, saved_bytes
from wtacrs.estimators.projections import prac as prac_module
from wtacrs.estimators.projections.subspace import principal_directions
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.problems import PROBLEMS, make_problem


def problem(n: int, d: int, m: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return make_problem("heavy_tailed", n, d, m, generator=torch.Generator().manual_seed(n), dtype=dtype)


def close(got: Tensor, expected: Tensor, x: Tensor, dy: Tensor, relative: float = 1e-9) -> None:
    torch.testing.assert_close(got, expected, rtol=0.0, atol=relative * float(joint_norms(x, dy).sum()))


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
@pytest.mark.parametrize(("d", "r"), [(1, 1), (4, 1), (5, 3), (6, 6)])
def test_random_projection_equals_its_twin(kind: str, d: int, r: int) -> None:
    x, dy = problem(7, d)
    estimator = RandomProjection(rank=r, kind=kind)
    for seed in range(3):
        saved = estimator.compress(x, generator=torch.Generator().manual_seed(seed))
        matrix = naive.random_projection(int(saved.seed), d, r, kind)
        expected = naive.projected_product(matrix, x.tolist(), dy.tolist())
        close(estimator.contract(saved, dy), torch.tensor(expected, dtype=torch.float64), x, dy, 1e-9 * d)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("d", "r", "kind"), [(3, 2, "rademacher"), (4, 1, "rademacher"), (3, 1, "gaussian")])
def test_enumeration_is_the_closed_form(name: str, d: int, r: int, kind: str) -> None:
    x, dy = make_problem(name, 5, d, 2, generator=torch.Generator().manual_seed(5))
    estimator = RandomProjection(rank=r, kind=kind)
    for scores in (None, torch.tensor([2.0, 0.0, 1.0, 0.0, 3.0])):
        found = enumerate_moments(estimator, x, dy, scores=scores)
        close(found.mean, estimator.expectation(x, dy, scores=scores), x, dy, 1e-10)
        assert found.variance == pytest.approx(float(estimator.variance(x, dy, scores=scores)), rel=1e-10)


def test_the_variance_knows_neither_rows_nor_scores() -> None:
    x, dy = problem(6, 5)
    product = float((dy.T @ x).square().sum())
    for kind, extra in (("gaussian", 1), ("rademacher", -1)):
        for rank in (1, 3, 5):
            stated = float(RandomProjection(rank=rank, kind=kind).variance(x, dy, scores=torch.arange(1, 7)))
            assert stated == pytest.approx((5 + extra) / rank * product)


def test_prac_equals_its_twin() -> None:
    x, dy = problem(9, 6)
    estimator = PRAC(rank=4, principal=2)
    for seed in range(3):
        saved = estimator.compress(x, generator=torch.Generator().manual_seed(seed))
        principal = saved.principal.T.tolist()
        random = naive.complement_directions(int(saved.seed), principal, 2)
        p = torch.tensor(principal, dtype=torch.float64)
        q = torch.tensor(random, dtype=torch.float64)
        expected = dy.T @ x @ (p.T @ p + (6 - 2) / 2 * q.T @ q)
        close(estimator.contract(saved, dy), expected, x, dy)


class OneDirection:
    """Choices and a source whose normal numbers are one given vector."""

    def __init__(self, vector: Tensor) -> None:
        self.vector = vector

    def seeded(self):
        return torch.zeros(1, dtype=torch.int64), self

    def normals(self, stream, counters):
        return self.vector[counters]

    signs = uniforms = offsets = integers = subset = plan = fresh = normals


def circle_moments(x: Tensor, dy: Tensor, estimator: PRAC) -> tuple[Tensor, float]:
    """Mean and variance over all directions of a plane: five equal angles are exact to degree four."""
    scores = torch.ones(x.shape[0], dtype=torch.float64)
    stored = estimator.keep(x, scores, OneDirection(torch.ones(x.shape[1], dtype=torch.float64))).principal
    whole = torch.linalg.qr(stored, mode="complete")[0]
    plane = whole[:, stored.shape[1] :]
    assert plane.shape[1] == 2
    estimates = []
    for j in range(5):
        angle = torch.tensor([math.cos(math.pi * j / 5), math.sin(math.pi * j / 5)], dtype=torch.float64)
        source = OneDirection(plane @ angle)
        estimates.append(estimator.finish(estimator.keep(x, scores, source), dy, source))
    mean = torch.stack(estimates).mean(0)
    return mean, sum(float((e - mean).square().sum()) for e in estimates) / 5


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "zero_rows"])
@pytest.mark.parametrize(("d", "principal"), [(2, 0), (3, 1), (4, 2)])
def test_prac_has_its_moments_exactly(name: str, d: int, principal: int) -> None:
    x, dy = make_problem(name, 6, d, 2, generator=torch.Generator().manual_seed(5))
    estimator = PRAC(rank=principal + 1, principal=principal)
    mean, variance = circle_moments(x, dy, estimator)
    close(mean, dy.T @ x, x, dy, 1e-10)
    close(estimator.expectation(x, dy), dy.T @ x, x, dy, 1e-12)
    scale = variance + float((dy.T @ x).square().sum())
    assert abs(variance - float(estimator.variance(x, dy))) <= 1e-10 * scale


def test_prac_is_unbiased_for_any_stored_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither orthonormal nor principal: what rounding to few bits may leave of them."""
    x, dy = problem(6, 4, 2)
    skew = torch.tensor([[1.0, 0.9], [0.0, 0.5], [0.1, 0.0], [0.0, 0.0]], dtype=torch.float64)
    monkeypatch.setattr(prac_module, "principal_directions", lambda x, support, rank: skew)
    mean, _ = circle_moments(x, dy, PRAC(rank=3, principal=2))
    close(mean, dy.T @ x, x, dy, 1e-10)


@pytest.mark.parametrize("principal", [0, 0.5, 3, 5])
def test_prac_is_exact_with_all_directions(principal: float) -> None:
    x, dy = problem(8, 5)
    estimator = PRAC(rank=5, principal=principal)
    close(estimator.contract(estimator.compress(x), dy), dy.T @ x, x, dy, 1e-11)
    assert float(estimator.variance(x, dy)) == 0.0


def test_prac_beats_a_plain_projection_on_every_family() -> None:
    for name in PROBLEMS:
        x, dy = make_problem(name, 12, 8, 3, generator=torch.Generator().manual_seed(2))
        plain = float(RandomProjection(rank=4).variance(x, dy))
        for principal in (0, 1, 2):
            # a direction given to P is one less to average over, and x need not say where dYᵀ X is large
            bound = (8 - 4) / (4 - principal) * float((dy.T @ x).square().sum())
            assert float(PRAC(rank=4, principal=principal).variance(x, dy)) <= bound * (1 + 1e-9)
        assert float(PRAC(rank=4, principal=0).variance(x, dy)) < plain


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_principal_directions_are_orthonormal_and_nearly_the_best(rank: int) -> None:
    generator = torch.Generator().manual_seed(3)
    u = torch.linalg.qr(torch.randn(30, 8, dtype=torch.float64, generator=generator))[0]
    v = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=generator))[0]
    x = u @ torch.diag(2.0 ** -torch.arange(8, dtype=torch.float64)) @ v.T
    found = principal_directions(x, torch.ones(30, dtype=torch.bool), rank)
    torch.testing.assert_close(found.T @ found, torch.eye(rank, dtype=torch.float64), rtol=0.0, atol=1e-12)
    left = float((x - x @ found @ found.T).norm())
    best = float((x - x @ v[:, :rank] @ v[:, :rank].T).norm())
    assert best <= left <= 1.02 * best


def test_row_weights_are_rows_stretched_by_their_roots() -> None:
    x, _ = problem(30, 8)
    weights = torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights[20:] = 0.0
    broken = torch.where(weights[:, None] > 0, x, torch.nan)
    stretched = principal_directions(weights.sqrt()[:, None] * x, torch.ones(30), 3)
    torch.testing.assert_close(principal_directions(broken, weights, 3), stretched, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_principal_directions_of_few_rows_are_orthonormal(rows: int) -> None:
    x = torch.randn(rows, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for support in (torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool)):
        found = principal_directions(x, support, 3)
        torch.testing.assert_close(found.T @ found, torch.eye(3, dtype=torch.float64), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    "spec", ["random_projection(rank=2)", "prac(rank=2)", "low_rank(rank=2)", "velora(groups=2)"]
)
def test_padding_brings_in_nothing(spec: str) -> None:
    """Not even NaN in x; dY meets zeros there."""
    x, dy = problem(20, 6)
    scores = torch.arange(20) % 2
    spoilt = (
        torch.where((scores == 0).unsqueeze(1), float("nan"), x),
        torch.where((scores == 0)[:, None], 1e30, dy),
    )
    clean, dirty = (
        make(spec).contract(make(spec).compress(a, scores=scores, generator=torch.Generator().manual_seed(0)), b)
        for a, b in ((x, dy), spoilt)
    )
    assert torch.equal(clean, dirty)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_and_dtypes(dtype: torch.dtype) -> None:
    x, dy = problem(40, 8, dtype=dtype)
    number, scale = dtype.itemsize, 8 if dtype == torch.float64 else 4
    for spec, expected in (
        ("random_projection(rank=0.25)", 40 * 2 * number + scale + 8),
        ("prac(rank=4, principal=0.25)", (40 * 4 + 8) * number + scale + 8),
        ("low_rank(rank=3)", (40 * 3 + 8 * 3) * number + scale),
        ("velora(groups=3)", (40 * 3 + 3) * number + scale),
    ):
        saved = make(spec).compress(x)
        assert saved_bytes(saved) == expected, spec
        assert make(spec).contract(saved, dy).dtype == dtype


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("random_projection(rank=0)", "random_projection: rank=0 must be a float in"),
        ("random_projection(rank=True)", "rank=True must be"),
        ("random_projection(rank=1.5)", "rank=1.5 must be"),
        ('random_projection(rank=1, kind="normal")', 'kind=\'normal\' must be "rademacher" or "gaussian"'),
        ("prac(rank=2, principal=1.0)", "principal=1.0 must be a float in"),
        ("prac(rank=2, principal=-1)", "principal=-1 must be"),
        ('low_rank(rank="all")', "low_rank: rank='all' must be"),
    ],
)
def test_refusals(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(spec)


def test_prac_needs_a_random_direction() -> None:
    with pytest.raises(InputError, match="principal=2 must be below the rank, 2 of 6 features"):
        PRAC(rank=2, principal=2).compress(torch.ones(3, 6))
    for spec in ("random_projection(rank=2)", "prac(rank=2)", "low_rank(rank=2)"):
        with pytest.raises(InputError, match="dy must have 3 rows"):
            make(spec).contract(make(spec).compress(torch.ones(3, 6)), torch.ones(4, 2))
