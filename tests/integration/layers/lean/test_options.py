"""Options of `lean_`: what is written is read back, and what is no option is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wtacrs.estimators import InputError
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.lean.options import LeanOptions

OPTIONS = st.builds(
    LeanOptions,
    attention=st.sampled_from([None, "keep", "again"]),
    head=st.sampled_from([None, "forward", "again"]),
    bits=st.sampled_from([None, 8, 4]),
    dropout=st.sampled_from(["stock", "quick"]),
)


@given(OPTIONS)
def test_what_is_written_is_read_back(options: LeanOptions) -> None:
    """Text and options are the same thing."""
    assert LeanOptions.parse(str(options)) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("atention", "did you mean attention"),
        ("attention,attention-again", "two kinds of attention"),
        ("", "'' is none of"),
    ],
)
def test_other_words_are_refused(text: str, message: str) -> None:
    """By what was written."""
    with pytest.raises(InputError, match=message):
        LeanOptions.parse(text)


@pytest.mark.parametrize(
    "values", [{"attention": True}, {"head": "keep"}, {"bits": 2}, {"bits": True}, {"dropout": None}]
)
def test_other_values_are_refused(values: dict[str, object]) -> None:
    """By name and value."""
    (name,) = values
    with pytest.raises(InputError, match=f"{name}={values[name]!r} must be"):
        LeanOptions(**values)  # type: ignore[arg-type]


def test_approximate_takes_options_words_and_flags() -> None:
    """All of them mean the same."""
    for lean in (True, "neighbours", LeanOptions()):
        model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
        assert approximate_(model, "wta_crs(budget=0.3)", lean=lean).lean is not None
    with pytest.raises(InputError, match="lean=3"):
        approximate_(nn.Linear(8, 8), "wta_crs(budget=0.3)", lean=3)  # type: ignore[arg-type]
