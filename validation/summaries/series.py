"""What a spec has in common at all sizes, so that its rows, lines and medians belong together."""

from __future__ import annotations

from collections.abc import Sequence

from wtacrs.estimators import InputError
from wtacrs.estimators.core.sizing import sizeless


def series(spec_text: str, sizes: Sequence[str] = ("budget",)) -> str:
    """What a spec has in common at all budgets: without its budget and without fields at their defaults.

    Text that is not a spec (a function of external code) is its own series; of text with a plus the parts are.

    Args:
        spec_text: a spec or a series.
        sizes: fields to leave out if they set the size (see `wtacrs.estimators.core.sizing`).

    >>> series("wta_crs(budget=0.3) + 8-bit")
    'wta_crs + 8-bit'
    >>> series("wta_crs(budget=0.3)"), series("crs(budget=64)"), series("exact"), series("mine.py:f")
    ('wta_crs', 'crs', 'exact', 'mine.py:f')
    """
    if " + " in spec_text:
        return " + ".join(series(part, sizes) for part in spec_text.split(" + "))
    try:
        return sizeless(spec_text, sizes)
    except InputError:
        return spec_text.strip()
