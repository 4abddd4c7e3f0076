"""Arguments of the wrong type: one line that names the argument, its value and what is accepted."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from wtacrs.estimators import InputError
from wtacrs.validation.arguments import (
    check_batch,
    check_callable,
    check_flag,
    check_kind,
    checked_integer,
    is_number,
    shown,
)


@pytest.mark.parametrize("value", [3, np.int64(3)])
def test_integers_become_those_of_python(value: Any) -> None:
    assert type(checked_integer(value, "steps", least=3)) is int


@pytest.mark.parametrize("value", [2, 3.0, True, "3", None, torch.tensor(3)])
def test_what_is_no_integer_is_named(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        checked_integer(value, "steps", least=3, or_none=True)
    assert str(caught.value) == f"steps={value!r} must be an integer from 3, or None"


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (lambda: check_flag("no", "resume"), "resume='no' must be True or False"),
        (lambda: check_flag(1, "resume"), "resume=1 must be True or False"),
        (lambda: check_callable(3, "f", takes="a layer"), "f=3 must be a function of a layer, or None"),
        (lambda: check_kind(3, "path", str), "path=3 must be a str"),
        (lambda: check_kind(3, "error", InputError), "error=3 must be an InputError"),
        (lambda: check_batch([1], "b"), "b=[1] must be a mapping of the forward pass's arguments by name"),
        (lambda: check_batch({1: 2}, "b"), "b={1: 2} must be a mapping of the forward pass's arguments by name"),
    ],
)
def test_other_types_are_named(check: Callable[[], None], told: str) -> None:
    with pytest.raises(InputError) as caught:
        check()
    assert str(caught.value) == told


def test_what_is_accepted() -> None:
    check_flag(False, "resume")
    check_callable(None, "f", takes="x")
    check_callable(print, "f", takes="x")
    check_kind("a", "path", str)
    check_batch(UserDict(x=1), "b")
    assert [is_number(value) for value in (1, 0.5, np.float32(1), True, "1", None, 1j)] == [True] * 3 + [False] * 4


def test_long_values_are_cut_and_stay_in_one_line() -> None:
    text = shown(torch.zeros(30, 30))
    assert len(text) == 120
    assert "\n" not in text
    assert text.endswith("…")
