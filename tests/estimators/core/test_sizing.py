"""One place for the size: what it is, how it is changed, left out and filled in, for estimators and for text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from support.planted import UnweightedWithoutReplacement

from wtacrs.estimators import CRS, ControlVariate, Estimator, Exact, InputError, Traits, available, make, rows_for
from wtacrs.estimators.core.sizing import (
    budget_of,
    exact_at,
    missing_size,
    resized,
    rows_kept,
    size_of,
    sized,
    sized_part,
    sizeless,
)

# spec, its size, without its size
NAMED = [
    ("crs(budget=0.3)", ("budget", 0.3), "crs"),
    ("exact", None, "exact"),
    ("stochastic_rounding(bits=4)", None, "stochastic_rounding(bits=4)"),
    ("stochastic_rounding(bits=8)", None, "stochastic_rounding"),
    ("prac(rank=16)", ("rank", 16), "prac"),
    ("random_projection(rank=0.5)", ("rank", 0.5), "random_projection"),
    ("mixed_precision_rows(slots=0.5)", ("slots", 0.5), "mixed_precision_rows"),
    ("velora(groups=4)", None, "velora(groups=4)"),
    ("control_variate(rank=4, rows=crs(budget=8))", ("budget", 8), "control_variate(rank=4, rows=crs)"),
    ("control_variate(rank=4, rows=fp8)", ("rank", 4), "control_variate(rows=fp8)"),
    ("control_variate(rows=fp8)", ("rank", 8), "control_variate(rows=fp8)"),
    (
        "control_variate(rank=4, rows=hadamard_rotation(rows=mixed_precision_rows(slots=1)))",
        ("slots", 1),
        "control_variate(rank=4, rows=hadamard_rotation(rows=mixed_precision_rows))",
    ),
]


@pytest.mark.parametrize(("text", "size", "name"), NAMED)
def test_a_spec_and_its_estimator_have_one_size(text: str, size: tuple[str, float] | None, name: str) -> None:
    estimator = make(text)
    assert size_of(text) == size_of(estimator) == size
    assert sizeless(text) == sizeless(estimator) == sizeless(name) == name
    assert budget_of(estimator) == (size[1] if size and size[0] == "budget" else None)
    part = sized_part(estimator)
    if size is None:
        assert part is None
    else:
        assert getattr(part, size[0]) == size[1]
        assert sized(name, size[1]) == (estimator if missing_size(name) else sized(name))
        assert size_of(resized(estimator, 2)) == (size[0], 2)


def test_other_names_and_fields_at_their_defaults_are_left_out_in_any_order() -> None:
    texts = (
        'control_variate(base="mean", rows=systematic)',
        'control_variate(rows=systematic(order="random", budget=0.3), rank=8, base="mean")',
        'control_variate(rank=8, base="mean", rows=systematic(budget=7))',
    )
    assert {sizeless(text) for text in texts} == {texts[0]}
    assert sizeless("systematic(budget=1)", ("rank",)) == "systematic(budget=1)"


def test_a_size_that_is_left_out_is_filled_in_wherever_it_stands() -> None:
    assert missing_size("quantized_rows(bits=2, rows=crs)") == "budget"
    assert missing_size("quantized_rows(bits=2, rows=crs(budget=3))") is None
    assert sized("quantized_rows(bits=2, rows=crs)", 3) == make("quantized_rows(bits=2, rows=crs(budget=3))")
    assert sized("prac") == make("prac(rank=1)")
    assert all(sized(name).name == name for name in available() if missing_size(name) or name in ("exact", "fp8"))


def test_names_that_are_not_registered_have_the_size_they_state() -> None:
    assert size_of("theirs(rows=inner(budget=7), rank=3)") == ("budget", 7)
    assert size_of("theirs(rank=3)") == ("rank", 3)
    assert sizeless('theirs(rows=inner(budget=7), kind="a")') == 'theirs(kind="a", rows=inner)'
    assert missing_size("theirs") is None
    assert size_of("missing.py:Theirs") is None
    assert size_of("missing.py:Theirs(budget=7)") == ("budget", 7)
    assert sizeless('control_variate(rows=missing.py:Theirs(budget=7, kind="a"))') == (
        'control_variate(rows=missing.py:Theirs(kind="a"))'
    )


@dataclass(frozen=True, repr=False)
class Listing(Exact):
    """A field that no spec can hold."""

    traits: ClassVar[Traits] = Exact.traits
    name: ClassVar[str] = "listing"
    sizes: tuple[int, ...] = (1, 2)
    budget: int = 3


def test_an_estimator_need_be_no_spec() -> None:
    assert size_of(Listing()) == ("budget", 3)
    assert resized(Listing(), 4) == Listing(budget=4)
    assert size_of(UnweightedWithoutReplacement(budget=2)) == ("budget", 2)


def test_what_cannot_be_sized_says_so() -> None:
    with pytest.raises(InputError, match="no budget, slots or rank"):
        resized(make("fp8"), 3)
    with pytest.raises(InputError, match="not of the form"):
        size_of("crs(budget=")
    with pytest.raises(InputError, match=r"spec 'crs\(bugdet=3\)'.*did you mean budget"):
        sized("crs(bugdet=3)")


# what a size means in rows


def problem_of(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 8, generator=generator), torch.randn(n, 3, generator=generator)


@pytest.mark.parametrize(("text", "size", "name"), NAMED)
def test_rows_kept_are_those_of_the_size(text: str, size: tuple[str, float] | None, name: str) -> None:
    estimator = make(text)
    for n in (0, 1, 10, 1000):
        expected = rows_for(size[1], n) if size is not None and size[0] == "budget" else None
        assert rows_kept(estimator, n) == expected


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("size", [1.0, 7, 100, 6, 0.5])
def test_exact_at_is_said_of_what_is_exact(name: str, size: float) -> None:
    """Of all that are registered, the products that are exact at 7 rows, for any draw, are those that say so."""
    needed = dict.fromkeys(("control_variate", "hadamard_rotation", "quantized_rows"), "(rows=wta_crs)")
    estimator = sized(name + (needed | {"velora": "(groups=4)", "subsampled": "(of=wta_crs)"}).get(name, ""), size)
    x, dy = problem_of(7)
    said = exact_at(estimator, 7)
    if said:
        torch.testing.assert_close(estimator.contract(estimator.compress(x), dy), dy.T @ x)
    kept = hasattr(estimator, "budget") and estimator.traits.exact_at_full_budget and rows_for(size, 7) == 7
    assert said == kept


class Unlisted(Estimator[tuple[()]]):
    """Neither registered nor a dataclass, and not hashable."""

    traits: ClassVar[Traits] = Traits("rows", True, False, True, exact_at_full_budget=True)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, inner: Estimator) -> None:
        self.rows = inner

    def compress(self, x, *, scores=None, generator=None):
        return ()

    def contract(self, saved, dy):
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class Wrapping(Exact):
    """A user's composite around what cannot be hashed; its traits claim less than those of `exact`."""

    traits: ClassVar[Traits] = Traits("rows", True, False, True, exact_at_full_budget=True)
    inside: object = None
    rows: object = None


def test_an_estimator_without_sizes_or_hash_is_answered() -> None:
    unlisted = Unlisted(CRS(budget=3))
    assert rows_kept(unlisted, 10) is None
    assert not exact_at(unlisted, 10)
    wrapping = Wrapping(inside=[unlisted], rows=CRS(budget=3))
    with pytest.raises(TypeError, match="unhashable"):
        hash(wrapping)
    assert rows_kept(wrapping, 10) == 3
    assert (exact_at(wrapping, 10), exact_at(wrapping, 3)) == (False, True)
    assert rows_kept(Listing(budget=4), 10) == 4
    assert rows_kept(Listing(budget=None), 10) is None  # type: ignore[arg-type]
    assert rows_kept(UnweightedWithoutReplacement(budget=2), 10) == 2


@pytest.mark.usefixtures("unchecked")
def test_rows_of_an_unchecked_budget_of_numpy() -> None:
    assert rows_for(np.int64(3), 10) == rows_for(torch.tensor(3), 10) == 3  # type: ignore[arg-type]
    assert rows_for(np.float64(0.3), 10) == rows_for(np.float16(0.3), 100) // 10 == 3
    assert type(rows_for(np.float64(0.3), 10)) is int


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("size", [np.float32(0.25), np.int16(4), torch.tensor(0.25)])
def test_a_size_of_numpy_or_torch_is_that_of_python(size: float) -> None:
    plain = size.item()  # type: ignore[union-attr]
    assert sized("crs", size) == resized(CRS(budget=1), size) == CRS(budget=plain)
    outer = sized("control_variate(rows=crs)", size)
    assert isinstance(outer, ControlVariate)
    assert type(outer.rows.budget) is type(plain)  # type: ignore[attr-defined]
    assert size_of(outer) == ("budget", plain)
