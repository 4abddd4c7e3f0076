"""The colours of a figure for a dark page: what is black or grey is turned over, what has a colour is made lighter."""

from __future__ import annotations

import colorsys
from typing import Any

from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from wtacrs.figures.contrast import legible

PAPER, INK = 0.09, 0.92
"""Lightness of the page, and of what is black on white."""
_BAND = 0.2
"""Lightness of a tinted band on the page, on which text is to be read too."""
AS_IT_IS = "as-it-is"
"""`gid` of artists whose colour stays: marks that a colour bar explains (their edges change), and numbers on them."""


def darken(fig: Figure) -> None:
    """Change a finished figure in place; colour maps stay."""
    found = fig.findobj(include_self=True)
    for axis in (axis for axes in fig.axes for axis in (axes.xaxis, axes.yaxis)):
        for tick in (*axis.majorTicks, *axis.minorTicks):  # more than are shown now, which may be shown later
            found += tick.findobj()
    for artist in dict.fromkeys(found):
        _darken(artist, artist.get_gid() == AS_IT_IS)


def dark(colour: Any) -> tuple[float, float, float, float]:
    """The colour on a dark page.

    >>> round(dark("white")[0], 2) == PAPER, dark("#0072b2")[2] > to_rgba("#0072b2")[2]
    (True, True)
    """
    red, green, blue, alpha = to_rgba(colour)
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if max(red, green, blue) - min(red, green, blue) < 0.06:
        level = INK + (PAPER - INK) * lightness
        return (level, level, level, alpha)
    return (*colorsys.hls_to_rgb(hue, max(lightness, 0.5 + 0.3 * (0.5 - min(lightness, 0.5))), saturation), alpha)


def _darken(artist: Artist, as_it_is: bool) -> None:
    if isinstance(artist, Text) and as_it_is:
        return
    if isinstance(artist, Text):
        artist.set_color(legible(dark(artist.get_color()), (_BAND,) * 3))
    elif isinstance(artist, Line2D):
        marks = artist.get_markerfacecolor(), artist.get_markeredgecolor(), artist.get_markerfacecoloralt()
        artist.set_color(dark(artist.get_color()))
        for change, colour in zip(
            (artist.set_markerfacecolor, artist.set_markeredgecolor, artist.set_markerfacecoloralt),
            marks,
            strict=True,
        ):
            if not isinstance(colour, str) or colour not in ("none", "auto"):
                change(dark(colour))
    elif isinstance(artist, Patch):
        face, edge = artist.get_facecolor(), artist.get_edgecolor()
        artist.set_facecolor(dark(face))
        artist.set_edgecolor(dark(edge))
    elif isinstance(artist, Collection) and artist.get_array() is None:
        faces: Any = artist.get_facecolor()
        edges: Any = artist.get_edgecolor()
        artist.set_facecolor(faces if as_it_is else [dark(each) for each in faces])
        artist.set_edgecolor([dark(each) for each in edges])
