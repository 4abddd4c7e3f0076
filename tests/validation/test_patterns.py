"""Patterns of names: what fits, and what is said of a pattern that fits nothing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from wtacrs.estimators import InputError
from wtacrs.validation.patterns import check_patterns, checked_patterns, first_fitting, fits, fitting

NAMES = ["encoder.0.wi", "encoder.0.wo", "encoder.1.wi", "decoder.0.wi", "lm_head"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", NAMES),
        ("encoder.*", NAMES[:3]),
        ("*.0.w?", ["encoder.0.wi", "encoder.0.wo", "decoder.0.wi"]),
        ("encoder.[1-9].*", ["encoder.1.wi"]),
        ("lm_head", ["lm_head"]),
    ],
)
def test_names_that_fit_keep_their_order(pattern: str, found: list[str]) -> None:
    assert fitting(NAMES, [pattern], what="layers") == found
    assert [name for name in NAMES if fits(name, [pattern])] == found


def test_the_first_pattern_counts() -> None:
    assert first_fitting("encoder.0.wi", ["decoder.*", "*.wi", "encoder.*"]) == "*.wi"
    assert first_fitting("lm_head", ["LM_head", "head"]) is None


def test_a_pattern_that_fits_nothing_is_named() -> None:
    with pytest.raises(
        InputError, match=r"^layers='wi' fits none of the 5 layers: encoder\.0\.wi, .*decoder\.0\.wi …$"
    ):
        fitting(NAMES, ["*", "wi"], what="layers")
    with pytest.raises(InputError, match=r"^rows='\*' fits none of the 0 names: there is none$"):
        check_patterns(["*"], [], what="names", argument="rows")
    check_patterns(["lm_head#0"], NAMES, what="layers", synonyms=["lm_head#0"])


@pytest.mark.parametrize("patterns", ["wi", b"wi", 3, [], ["wi", 3], {"wi": "exact"}, None])
def test_what_is_no_list_of_patterns_is_named(unchecked: None, patterns: object) -> None:
    for refuse in (checked_patterns, lambda given: fitting(NAMES, given, what="layers")):
        with pytest.raises(InputError) as caught:
            refuse(patterns)
        example = ["wi"] if patterns == "wi" else ["encoder.*", "classifier"]
        assert str(caught.value) == (
            f"layers={patterns!r} must be a list of at least one pattern, as in {example!r}"
        )


@pytest.mark.parametrize("patterns", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}.keys()])
def test_patterns_may_be_in_any_collection(patterns: Iterable[str]) -> None:
    assert checked_patterns(patterns) == ["a", "b"]
