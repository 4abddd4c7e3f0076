"""Bytes as they are told in sentences and tables."""

from __future__ import annotations

import re

from wtacrs.estimators.core.errors import InputError


def megabytes(size: int) -> str:
    """Bytes in units of 10⁶, with three digits where they are few.

    >>> megabytes(23_044), megabytes(2_424_832), megabytes(1_234_567_890)
    ('0.023', '2.42', '1,235')
    """
    value = size / 1e6
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}"


def gigabytes(size: int) -> str:
    """Bytes in units of 10⁹, with three digits where they are few.

    >>> gigabytes(23_044_000), gigabytes(1_234_567_890), gigabytes(123_456_000_000)
    ('0.023', '1.23', '123.5')
    """
    value = size / 1e9
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}"


_UNITS = {
    "": 1,
    "B": 1,
    **{f"{p}B": 1000**n for n, p in enumerate("KMGT", 1)},
    **{f"{p}IB": 1024**n for n, p in enumerate("KMGT", 1)},
}


def bytes_of_text(text: str, argument: str) -> int:
    """Bytes that a text such as "24GB" (10⁹) or "80GiB" (2³⁰) names.

    Args:
        text: a number and a unit: B, kB, MB, GB, TB, KiB, MiB, GiB or TiB.
        argument: what an error names.

    Raises:
        InputError: on anything else, and on less than one byte.

    >>> bytes_of_text("24GB", "budget"), bytes_of_text("1.5 GiB", "budget")
    (24000000000, 1610612736)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = None if found is None else _UNITS.get(found[2].upper())
    if found is None or unit is None or float(found[1]) * unit < 1:
        raise InputError(f"{argument}={text!r} must be a number of bytes such as 24GB (10⁹) or 80GiB (2³⁰)")
    return int(float(found[1]) * unit)
