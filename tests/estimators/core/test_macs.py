"""The stated MACs are those that run, for every registered estimator."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch

from wtacrs.estimators import CRS, Estimator, NoClosedForm, available, lookup, make
from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.properties.macs import counted_macs

FIELDS = {
    "budget": (0.3, 5, 1.0),
    "slots": (0.3, 5, 3.0),
    "rank": (3, 0.5),
    "groups": (2, 3),
    "rows": ("systematic(budget=0.3)",),
    "of": ("systematic(budget=0.3)", "exact"),
}
SHAPES = ((40, 9, 5), (9, 16, 21), (120, 4, 1), (1, 3, 2), (0, 4, 3))
DRAWN = ("vcas",)
"""How many rows these multiply is random: they state no MACs."""
COMPOSITES = (
    "quantized_rows(bits=2, rows=bernoulli(budget=0.3))",
    "quantized_rows(rows=conditional_poisson(budget=0.3))",
    'control_variate(base="mean", rows=exact)',
    'control_variate(base="lowrank", rank=2, rows=gaussian_sketch(budget=0.3))',
    'control_variate(base="mean+lowrank", rank=20, rows=low_rank(rank=2))',
    "control_variate(rank=2, rows=quantized_rows(bits=2, rows=sampford(budget=0.3)))",
    'mixed_precision_rows(slots=3.0, design="sampford")',
    'mixed_precision_rows(slots=0.3, design="conditional_poisson")',
    "control_variate(rank=1, rows=control_variate(rank=2, rows=prac(rank=3)))",
    'random_projection(rank=2, kind="gaussian")',
    "prac(rank=0.5, principal=0)",
    "bernoulli(budget=0.3, reserve=0.0)",
    "subsampled(of=bernoulli(budget=0.3), rows=0.3)",
    'subsampled(of=dithered_rows(slots=2.0, product="float"), rows=0.3)',
    'subsampled(of=dithered_rows(slots=2.5, product="float"), rows=7, design="sampford")',
    'subsampled(of=quantized_rows(rows=pivotal(budget=0.5)), rows=0.5, design="conditional_poisson")',
    'pivotal(budget=0.3, order="rows")',
    "lbp_wht(budget=0.3, tokens=4)",
    "xconv(budget=2, tokens=4)",
    'velora(groups=2, direction="random")',
    "uniform(budget=0.3, replacement=True)",
    'wta_crs(budget=0.3, winners="optimal")',
)


def registered() -> list[str]:
    """A spec of every registered estimator at every value of the field that it needs."""
    found = []
    for name in available():
        fields = dataclasses.fields(lookup(name))
        needed = [f.name for f in fields if f.default is dataclasses.MISSING]
        assert len(needed) <= 1, f"{name} needs {needed}: say here what they may be"
        found += [f"{name}({field}={value})" for field in needed for value in FIELDS[field]] or [name]
    return [spec for spec in found if spec not in DRAWN]


def counted(estimator: Estimator, n: int, d: int, m: int, dtype: torch.dtype = torch.float32) -> int:
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(n, width, generator=generator).to(dtype) for width in (d, m))
    return counted_macs(estimator, x, dy, generator=generator)


@pytest.mark.parametrize("spec", [*registered(), *COMPOSITES])
def test_what_is_stated_is_what_runs(spec: str) -> None:
    estimator = make(spec)
    for shape in SHAPES:
        assert estimator.macs(*shape) == counted(estimator, *shape), shape


@pytest.mark.parametrize("spec", DRAWN)
def test_a_random_number_of_rows_is_not_stated(spec: str) -> None:
    with pytest.raises(NoClosedForm, match="5 in the mean"):
        make(spec).macs(10, 4, 3)


def test_the_count_does_not_depend_on_the_precision() -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert counted(make("exact"), 10, 4, 3, dtype) == 120
        assert counted(make("crs(budget=5)"), 10, 4, 3, dtype) == 60


def test_the_counter_sees_products_with_a_vector() -> None:
    """Two pieces of two numbers in each of 10 rows, along one direction, beside 10 × 2 × 3."""
    assert counted(make("velora(groups=2)"), 10, 4, 3) == 10 * 2 * 2 + 10 * 2 * 3


@dataclass(frozen=True, repr=False)
class Understated(CRS):
    """CRS that counts half of its rows."""

    name = "understated"

    def macs(self, n: int, d: int, m: int) -> int:
        return super().macs(n, d, m) // 2


@dataclass(frozen=True, repr=False)
class Spendthrift(CRS):
    """CRS that multiplies all rows and says what CRS says."""

    name = "spendthrift"

    def contract(self, saved, dy):
        return super().contract(saved, dy) + 0 * (dy.T @ dy).sum()


@dataclass(frozen=True, repr=False)
class Silent(CRS):
    """CRS that does not say."""

    name = "silent"

    def macs(self, n: int, d: int, m: int) -> int:
        return Estimator.macs(self, n, d, m)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("estimator", "status", "told"),
    [
        (CRS(budget=0.3), "holds", "0.292, 0.29, 0.3 of the exact product's"),
        (Understated(budget=0.3), "broken", "n=24, d=4, m=3: states 42, runs 84"),
        (Spendthrift(budget=0.3), "broken", "n=24, d=4, m=3: states 84, runs 300"),
        (Silent(budget=0.3), "not applicable", "silent(budget=0.3) does not state its macs"),
    ],
)
def test_the_property_catches_a_wrong_statement(estimator: Estimator, status: str, told: str) -> None:
    (verdict,) = check_estimator(estimator, only=["macs"], raises=False)
    assert (verdict.status, verdict.detail) == (status, told)


def test_a_composite_of_what_does_not_say_does_not_say() -> None:
    inner = Silent(budget=0.3)
    for wrapped in (
        make("control_variate(rows=exact)", rows=inner),
        make("quantized_rows(rows=crs(budget=1))", rows=inner),
    ):
        with pytest.raises(NoClosedForm, match="silent"):
            wrapped.macs(10, 4, 3)
