"""Specs and names: what is written is what is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wtacrs.estimators import CRS, WTACRS, InputError, Traits, available, make, register, spec
from wtacrs.estimators.rows.exact import Exact

BUDGETS = st.one_of(st.integers(1, 10**6), st.floats(min_value=1e-9, max_value=1.0))
WINNERS = st.one_of(
    st.sampled_from(["paper", "optimal"]), st.integers(0, 1000), st.floats(0.0, 1.0, exclude_max=True)
)


@given(BUDGETS, WINNERS)
def test_spec_round_trip_keeps_values_and_types(budget: float, winners: str | int | float) -> None:
    assume(not (isinstance(budget, int) and isinstance(winners, int) and winners >= budget))
    estimator = WTACRS(budget=budget, winners=winners)
    again = make(spec(estimator))
    assert again == estimator
    assert isinstance(again, WTACRS)
    assert type(again.budget) is type(budget)
    assert type(again.winners) is type(winners)
    assert hash(again) == hash(estimator)


def test_spec_spells_out_every_field() -> None:
    assert spec(make("wta_crs(budget=0.3)")) == 'wta_crs(budget=0.3, winners="paper")'
    assert spec(make("exact")) == "exact"
    assert make("crs", budget=5) == CRS(budget=5)
    assert make(CRS(budget=5), budget=0.5) == CRS(budget=0.5)


def test_the_four_are_available() -> None:
    assert {"exact", "topk", "crs", "wta_crs"} <= set(available())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("wta_csr(budget=0.3)", "did you mean wta_crs"),
        ("crs(bugdet=0.3)", "did you mean budget"),
        ("crs", "crs needs budget"),
        ("crs(0.3)", "with their names"),
        ("crs(budget=0.3", "not of the form"),
        ("crs(budget=__import__('os'))", "__import__"),
        ("crs(budget=[1])", "[1] is no number"),
        ("crs(**{})", "one name of its own"),
        ("crs(budget=0.3) + 1", "not of the form"),
        ("", "not of the form"),
        ("crs(budget=0)", "budget=0 must be"),
        ("crs(budget=1.5)", "budget=1.5 must be"),
        ("crs(budget=-0.1)", "budget=-0.1 must be"),
        ("crs(budget=True)", "budget=True must be"),
        ('crs(budget="0.3")', "budget='0.3' must be"),
        ('wta_crs(budget=0.3, winners="most")', "winners='most' must be"),
        ("wta_crs(budget=0.3, winners=-1)", "winners=-1 must be"),
        ("wta_crs(budget=0.3, winners=1.0)", "winners=1.0 must be"),
        ("wta_crs(budget=4, winners=9)", "winners=9 must be below budget=4"),
        ("crs(budget=nan)", "budget=nan must be"),
    ],
)
def test_bad_specs_say_what_is_wrong(text: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        make(text)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_budget_of_one_row_and_of_all_rows_differ() -> None:
    assert (spec(CRS(budget=1)), spec(CRS(budget=1.0))) == ("crs(budget=1)", "crs(budget=1.0)")
    assert make("crs(budget=1)").budget == 1  # type: ignore[attr-defined]
    assert isinstance(make("crs(budget=1.0)").budget, float)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("unchecked")
def test_registering_twice_or_wrongly_is_refused() -> None:
    with pytest.raises(InputError, match="taken by"):

        @register("crs")
        @dataclass(frozen=True, repr=False)
        class Other(Exact):
            traits: ClassVar[Traits] = Exact.traits

    with pytest.raises(InputError, match="frozen=True"):

        @register("loose")
        class Loose(Exact):
            pass

    with pytest.raises(InputError, match="must derive"):
        register("number")(int)  # type: ignore[type-var]
    with pytest.raises(InputError, match="identifier"):
        register("two words")(CRS)
