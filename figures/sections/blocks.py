"""What a section of the report is made of, as data; `report/report.html.j2` turns it into HTML and escapes it."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, NamedTuple, TypeVar

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import Result

METHODS = {"closed form": "closed form", "monte carlo": "Monte Carlo"}
SCORES = {"row-norms": "row-norm scores", "stale": "stale scores", "oracle": "oracle scores"}
ResultT = TypeVar("ResultT", bound=Result)


class Named(NamedTuple, Generic[ResultT]):
    """A result and the name of its file."""

    file: str
    result: ResultT


@dataclass(frozen=True)
class Code:
    """Text in the typewriter face."""

    text: str
    tag: ClassVar[str] = "code"


@dataclass(frozen=True)
class Flag:
    """A verdict: green where it is good, red where it is bad."""

    text: str
    good: bool
    tag: ClassVar[str] = "flag"


Cell = str | float | Code | Flag | None


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; a soft one is a note."""

    text: str
    soft: bool = False
    tag: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Heading:
    """A heading of third rank."""

    text: str
    tag: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Definitions:
    """Terms and what they mean."""

    pairs: Sequence[tuple[str, str]]
    tag: ClassVar[str] = "definitions"


@dataclass(frozen=True)
class Picture:
    """A PNG, its text for those who do not see it, its caption, and perhaps the PNG for dark pages."""

    png: bytes
    alternative: str
    caption: str
    dark: bytes | None = None
    tag: ClassVar[str] = "picture"

    @property
    def data(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.png).decode("ascii")

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, as the header of the PNG says them; None where it has none."""
        if len(self.png) < 24:
            return None
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    @property
    def dark_data(self) -> str:
        """The PNG for a dark page in base64; empty if there is none."""
        return "" if self.dark is None else base64.b64encode(self.dark).decode("ascii")


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        head: titles of the columns.
        rows: cells; a float is printed by `number` and None as a dash, both to the right.
        groups: titles over spans of columns, `(title, number of columns)`.
        numeric: places of the columns that are set to the right.
        caption: what the table shows; a section fills in its own title or heading where there is none.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()
    numeric: Sequence[int] = ()
    caption: str = ""
    tag: ClassVar[str] = "table"


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away at first."""

    summary: str
    blocks: Sequence[Block]
    tag: ClassVar[str] = "details"


Block = Paragraph | Heading | Definitions | Picture | Table | Details


@dataclass
class Section:
    """A section under way: its title and its blocks."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def pictures(self) -> set[bytes]:
        """The PNG files in it."""
        return {block.png for block in self.blocks if isinstance(block, Picture)}

    @property
    def anchor(self) -> str:
        """The title as the target of a link."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())

    def add(self, *blocks: Block) -> None:
        """Append blocks; a table without a caption takes the last heading, or the title."""
        for block in blocks:
            headings = [found.text for found in self.blocks if isinstance(found, Heading)]
            self.blocks.append(_captioned(block, f"{self.title}: {headings[-1]}" if headings else self.title))

    def draw(self, build: Callable[[], Sheet], title: str, caption: str, *, finding: Callable[[], str]) -> None:
        """Append a figure, or the sentence saying why there is nothing to draw.

        Args:
            build: what draws it.
            title: what it is of.
            caption: how it is read.
            finding: says what it shows, from its data; with the title the text for those who do not see it.
        """
        try:
            figure = build()
        except style.NothingToDraw as reason:
            self.add(Paragraph(f"No figure “{title}”: {reason}.", soft=True))
            return
        png = style.png(figure)
        self.add(Picture(png, f"{title}: {finding()}", caption, style.dark_png(figure)))

    def each(self, results: Sequence[Named[ResultT]]) -> Iterable[Named[ResultT]]:
        """The results one by one, each under the name of its file where there are several."""
        for named in results:
            if len(results) > 1:
                self.add(Heading(named.file))
            yield named


def _captioned(block: Block, caption: str) -> Block:
    if isinstance(block, Table) and not block.caption:
        return replace(block, caption=caption)
    if isinstance(block, Details):
        return replace(block, blocks=[_captioned(inner, block.summary) for inner in block.blocks])
    return block


def number(value: float | None, error: float | None = None) -> str:
    """Three significant digits, with `± error` where there is one; a dash for None."""
    if value is None:
        return "–"
    return _digits(value) + (f" ± {_digits(error)}" if error is not None else "")


def percent(fraction: float) -> str:
    """A fraction as per cent with one decimal."""
    return f"{100 * fraction:.1f} %" if math.isfinite(fraction) else str(fraction)


def _digits(value: float) -> str:
    return "0" if value == 0 else f"{value:.3g}"
