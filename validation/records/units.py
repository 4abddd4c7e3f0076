"""Bytes as they are told in sentences and tables."""


def megabytes(size: int) -> str:
    """Bytes in units of 10⁶, with three digits where they are few.

    >>> megabytes(23_044), megabytes(2_424_832), megabytes(1_234_567_890)
    ('0.023', '2.42', '1,235')
    """
    value = size / 1e6
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}"
