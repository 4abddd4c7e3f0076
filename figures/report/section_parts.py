"""What every section of the report is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from matplotlib.figure import Figure

from wtacrs.figures import (
    style,
)
from wtacrs.figures.report.page import (
    Markup,
    paragraph,
    picture,
    section,
)
from wtacrs.validation.records.base import Result

METHODS = {"closed form": "closed form", "monte carlo": "Monte Carlo"}


class Named(NamedTuple):
    """A result and the name of its file."""

    file: str
    result: Result


@dataclass
class Section:
    """A section under way: its title, its HTML pieces, and the PNG files among them."""

    title: str
    pieces: list[Markup] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)

    @property
    def html(self) -> Markup:
        """The finished section."""
        return section(self.title, *self.pieces)

    def add(self, *pieces: Markup) -> None:
        """Append HTML."""
        self.pieces.extend(pieces)

    def draw(self, build: Callable[[], Figure], alternative: str, caption: str) -> None:
        """Append a figure, or the sentence saying why there is nothing to draw."""
        try:
            png = style.png(build())
        except style.NothingToDraw as reason:
            self.add(paragraph(f"No figure “{alternative}”: {reason}.", "soft"))
            return
        self.pictures.append(png)
        self.add(picture(png, alternative, caption))


def missing(what: str) -> Markup:
    """The sentence for a kind of result that the folder does not hold."""
    return paragraph(f"The folder holds no {what}.", "soft")


def numbers(first: int, last: int, keep: tuple[int, ...] = ()) -> list[str]:
    """Kinds of cells: numbers from `first` to `last`, but for those in `keep`."""
    return ["" if i < first or i in keep else "number" for i in range(last)]
