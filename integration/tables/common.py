"""What several tables say."""

from __future__ import annotations

from collections.abc import Sequence

from wtacrs.validation.statistics.equivalence import nothing_learned_warning


def warning_line(exact: Sequence[float], majority: float) -> str:
    """A line of warning where exact training learned nothing that could be spoilt; else nothing."""
    warning = nothing_learned_warning(exact, majority)
    return f"{warning}\n" if warning else ""
