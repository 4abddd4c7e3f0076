"""Bytes in sentences."""

from __future__ import annotations

from wtacrs.validation.records.memory import megabytes as also
from wtacrs.validation.records.units import megabytes


def test_three_digits_where_they_are_few() -> None:
    told = [megabytes(size) for size in (0, 999, 99_999, 9_999_999, 10_000_000, 100_000_000, 1_234_567_890)]
    assert told == ["0.000", "0.001", "0.100", "10.00", "10.0", "100", "1,235"]
    assert also is megabytes
