"""Bytes in sentences, and as they are asked for."""

from __future__ import annotations

import pytest

from wtacrs.estimators import InputError
from wtacrs.validation.records.memory import megabytes as also
from wtacrs.validation.records.units import bytes_from, megabytes


def test_three_digits_where_they_are_few() -> None:
    told = [megabytes(size) for size in (0, 999, 99_999, 9_999_999, 10_000_000, 100_000_000, 1_234_567_890)]
    assert told == ["0.000", "0.001", "0.100", "10.00", "10.0", "100", "1,235"]
    assert also is megabytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 10**9),
        ("7.5 GiB", 15 * 2**29),
        ("900MB", 9 * 10**8),
        ("3 kB", 3000),
        ("2KiB", 2048),
        ("1TiB", 2**40),
        ("17B", 17),
        ("17", 17),
    ],
)
def test_bytes_from(text: str, size: int) -> None:
    assert bytes_from(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-8GB", "8 GiG", "8iB", "8 apples", "0", "0.1B", "1e9", "8GBs"])
def test_no_bytes(text: str) -> None:
    with pytest.raises(InputError, match="memory="):
        bytes_from(text)
