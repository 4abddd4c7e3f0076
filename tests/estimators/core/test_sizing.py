"""One place for the size: what it is, how it is changed, left out and filled in, for estimators and for text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from support.planted import UnweightedWithoutReplacement

from wtacrs.estimators import Exact, InputError, Traits, available, make
from wtacrs.estimators.core.sizing import (
    budget_of,
    missing_size,
    resized,
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
        size_of("file.py:function")
    with pytest.raises(InputError, match=r"spec 'crs\(bugdet=3\)'.*did you mean budget"):
        sized("crs(bugdet=3)")
