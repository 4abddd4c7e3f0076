"""Contrast of colours, as WCAG measures it: which ink stands on a colour, and how a colour becomes legible on another."""

from __future__ import annotations

import colorsys
from typing import Any

from matplotlib.colors import to_hex, to_rgb

LEGIBLE = 4.5
"""The least contrast of text (WCAG 2.2, level AA)."""
_STEP = 0.02


def contrast(one: Any, other: Any) -> float:
    """From 1 (the same lightness) to 21 (black on white).

    >>> round(contrast("black", "white"), 1), contrast("#8a8a8a", "#8a8a8a")
    (21.0, 1.0)
    """
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def ink_on(colour: Any) -> str:
    """Black or white, whichever is the easier to read on the colour; always legible.

    >>> ink_on("#fde725"), ink_on("#440154")
    ('black', 'white')
    """
    return max(("black", "white"), key=lambda ink: contrast(ink, colour))


def legible(colour: Any, on: Any = "white") -> str:
    """The colour, made darker or lighter until text in it is legible on the other.

    >>> legible("#333333"), contrast(legible("#e69f00"), "white") >= LEGIBLE
    ('#333333', True)
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    step = _STEP if _luminance(on) < 0.18 else -_STEP
    while contrast(colorsys.hls_to_rgb(hue, lightness, saturation), on) < LEGIBLE and 0 < lightness < 1:
        lightness = min(max(lightness + step, 0.0), 1.0)
    return to_hex(colorsys.hls_to_rgb(hue, lightness, saturation))


def _luminance(colour: Any) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
