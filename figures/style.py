"""One look for all figures: a colour and a marker per estimator, sizes, and how a picture is written.

Nothing here changes matplotlib's global state: figures are objects of their own (no pyplot), and the settings
hold only inside `settings()`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from wtacrs.estimators import InputError
from wtacrs.figures.given_axes import Given, GivenAxes
from wtacrs.figures.sheet import Sheet, Size
from wtacrs.validation.files import replacing
from wtacrs.validation.summaries.series import series

DPI = 150
INK, GREY = "#333333", "#8a8a8a"
DASHES = ("-", (0, (5, 1.6)), (0, (1, 1.2)), (0, (5, 1.4, 1, 1.4)))

# Okabe and Ito's colours for what is compared most often; the fallback cycle has none of them. The designs of the
# theory's figures share its colours, one each, and have markers that it lacks.
_KNOWN = {
    "exact": (INK, "o"),
    "topk": ("#cc79a7", "v"),
    "crs": ("#e69f00", "s"),
    "wta_crs": ("#0072b2", "o"),
    'wta_crs(winners="optimal")': ("#009e73", "D"),
    "bernoulli(reserve=20.0)": ("#d55e00", "v"),
    "conditional_poisson": ("#56b4e9", "D"),
    'pivotal(order="rows")': ("#882255", "s"),
    "priority": ("#8c510a", "D"),
    "sampford": ("#332288", "v"),
    'systematic(order="rows")': ("#8a8a2b", "o"),
}
_FALLBACK_COLOURS = ("#d55e00", "#332288", "#56b4e9", "#882255", "#8a8a2b", "#8c510a")
_FALLBACK_MARKERS = ("P", "^", "X", "<", "p", ">", "h", "d")

_SETTINGS = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "figure.titlesize": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.handlelength": 3.4,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "wtacrs",
    # labels of minor ticks on the same line as those of major ones
    "xtick.minor.pad": 5.0,
}


class NothingToDraw(InputError):
    """The result is well formed but holds nothing that could be shown on these axes."""


@dataclass(frozen=True)
class Look:
    """Colour (hex) and matplotlib marker of one series."""

    colour: str
    marker: str


def looks(specs: Iterable[str]) -> dict[str, Look]:
    """A look for each series among the specs, in their order.

    An unknown series takes its place in the fallback cycle from a checksum of its name: the same in every run
    and every figure, unless another one in this figure has taken that very colour and marker.
    """
    names = list(dict.fromkeys(series(text) for text in specs))
    found = {name: Look(*_KNOWN[name]) for name in names if name in _KNOWN}
    cycle = [Look(colour, marker) for marker in _FALLBACK_MARKERS for colour in _FALLBACK_COLOURS]
    for name in sorted(set(names) - set(found)):
        start = zlib.crc32(name.encode()) % len(cycle)
        turned = cycle[start:] + cycle[:start]
        found[name] = next((look for look in turned if look not in found.values()), turned[0])
    return {name: found[name] for name in names}


def look(spec_text: str) -> Look:
    """The look of one estimator by itself."""
    return looks([spec_text])[series(spec_text)]


Style = str | Path | Mapping[str, Any]
"""Name of a style of matplotlib, an .mplstyle file, or settings as in matplotlib's rcParams."""


SizeName = Literal["column", "page"]
SIZES: dict[str, Size] = {"column": (3.25, None), "page": (6.75, None)}
"""Widths of a column and of a page of a paper, in inches."""


@dataclass(frozen=True)
class _Wanted:
    """What the user wants otherwise: axes, a size in inches, a style."""

    axes: Given | None = None
    size: Size | None = None
    style: Style | None = None
    title: bool = True


_NOTHING = _Wanted()
_wanted: ContextVar[_Wanted | None] = ContextVar("_wanted", default=None)


@contextmanager
def wanted(
    *,
    axes: Given | None = None,
    size: Size | SizeName | None = None,
    style: Style | None = None,
    title: bool = True,
) -> Iterator[None]:
    """Draw the figures that are built inside the block into these axes, or in this size and style.

    Args:
        axes: of the user's own figure, which has its size and style already.
        size: as in `size_of`.
        style: over this project's own.
        title: whether figures have titles; panels keep theirs.

    Raises:
        InputError: on a size that is not positive, a style that matplotlib does not know, or either beside axes.
    """
    for name, value in (("size", size), ("style", style)):
        if axes is not None and value is not None:
            raise InputError(
                f"{name}={value!r}: axes that are given (ax) have a {name} already; set it on their figure"
            )
    sides = None if size is None else size_of(size)
    if style is not None:
        _checked_style(style)
    token = _wanted.set(_Wanted(axes, sides, style, title))
    try:
        yield
    finally:
        _wanted.reset(token)


def size_of(size: Size | str) -> Size:
    """Width and height in inches, the height None for as high as the figure needs.

    Args:
        size: both, or "column" (3.25 wide) or "page" (6.75 wide), as high as the figure needs.

    Raises:
        InputError: on another word, and on sides that are not numbers from 0 to 100.

    >>> size_of("column")
    (3.25, None)
    """
    sides = SIZES.get(size) if isinstance(size, str) else size
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(map(_is_side, sides)) or sides[0] is None:
        raise InputError(
            f"size={size!r} must be width and height in inches from 0 to 100, as in (3.25, 2.5), the height None for as "
            f"high as it takes, or {' or '.join(map(repr, SIZES))}"
        )
    return float(sides[0]), None if sides[1] is None else float(sides[1])


def _is_side(side: object) -> bool:
    return side is None or (isinstance(side, int | float) and 0 < side < 100)


def _checked_style(style: Style) -> None:
    try:
        with matplotlib.style.context(_of_matplotlib(style)):
            pass
    except (OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"style={style!r}: matplotlib cannot use it: {reason}") from None


def _of_matplotlib(style: Style) -> Any:
    return str(style) if isinstance(style, Path) else style if isinstance(style, str) else dict(style)


@contextmanager
def settings() -> Iterator[None]:
    """The house's fonts, sizes and colours over matplotlib's own defaults, whatever the user's matplotlibrc."""
    with matplotlib.style.context(["default", _SETTINGS]):
        yield


@contextmanager
def figure(width: float, height: float) -> Iterator[Sheet]:
    """A new figure of the given size in inches, to be filled inside the block; unknown to pyplot.

    Inside `wanted(axes=…)` what is filled are these axes. A style that the user wants comes over the house's own.
    """
    ours = _wanted.get() or _NOTHING
    if ours.axes is not None:
        given = GivenAxes(ours.axes)
        yield given  # type: ignore[misc]  # what plots call of a sheet
        given.finish()
        return
    looks = ["default", _SETTINGS, *([] if ours.style is None else [_of_matplotlib(ours.style)])]
    sheet = Sheet(
        width, height, looks=looks, size=ours.size, title=ours.title, dpi=DPI, rescale=ours.style is None
    )  # fmt: skip
    with sheet.look():
        yield sheet
        sheet.finish()


def png(fig: Figure) -> bytes:
    """The figure as PNG, 150 dpi, without metadata: the same figure gives the same bytes."""
    return _written(fig, "png", DPI)


def dark_png(fig: Sheet) -> bytes:
    """The figure as PNG for a dark page; its colours are changed in place."""
    fig.darken()
    return png(fig)


# no dates and no versions: the same figure gives the same bytes
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Date": None, "Creator": None},
}


def _written(fig: Figure, kind: str, dpi: int) -> bytes:
    with settings():
        stream = io.BytesIO()
        fig.savefig(stream, format=kind, dpi=dpi, metadata=_METADATA[kind], facecolor=fig.get_facecolor())
    return stream.getvalue()


def save(fig: Figure, path: str | Path, *, dpi: int = DPI) -> Path:
    """Write the figure whole or not at all, in the format of the name: .png, .pdf or .svg; parent folders are made.

    Text stays text: TrueType fonts in PDF, text elements in SVG. The same figure gives the same bytes.

    Raises:
        InputError: if the name ends otherwise, or the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _METADATA:
        raise InputError(
            f"picture file {path}: the name must end in {', '.join(f'.{each}' for each in _METADATA)}"
        )
    content = _written(fig, kind, dpi)
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise InputError(f"picture file {path}: {error.strerror or error}") from None
    return path


def numbered(names: Iterable[str]) -> tuple[list[Line2D], list[str]]:
    """Handles and labels of a legend that says what the numbers in a figure stand for."""
    labels = [f"{number}  {shorten(name, 74)}" for number, name in enumerate(names, start=1)]
    return [Line2D([], [], linestyle="none") for _ in labels], labels


def colorbar(fig: Sheet, mappable: ScalarMappable, panels: Sequence[Axes], label: str = "") -> None:
    """A colour bar below the panels, with plain numbers."""
    bar = fig.colorbar(mappable, ax=list(panels), location="bottom", shrink=0.8, aspect=40, pad=0.02, label=label)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    bar.ax.xaxis.set_major_formatter(plain)
    low, high = mappable.get_clim()
    if isinstance(mappable.norm, LogNorm) and low is not None and high is not None and high < 20 * low:
        bar.ax.xaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else "")
        )
    else:
        bar.ax.xaxis.set_minor_formatter(NullFormatter())


def tag(axes: Axes, text: str) -> None:
    """A left-aligned title."""
    axes.set_title(text, loc="left")


def shorten(text: str, limit: int) -> str:
    """The text with its middle left out where it is longer than `limit` characters.

    >>> shorten("encoder.block.0.SelfAttention.q", 20)
    'encoder.b…tention.q'
    """
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def short_names(layers: Iterable[str], limit: int = 40) -> dict[str, str]:
    """Layer names without the containers that all of a model's layers sit in, still told apart.

    >>> short_names(["encoder.block.0.layer.1.DenseReluDense.wi"])
    {'encoder.block.0.layer.1.DenseReluDense.wi': 'encoder.0.1.DenseReluDense.wi'}
    """
    names = list(dict.fromkeys(layers))
    containers = {"model", "module", "base_model", "transformer", "block", "layer", "layers"}
    for drop in (containers, set[str]()):
        short = [shorten(".".join(p for p in name.split(".") if p not in drop) or name, limit) for name in names]
        if len(set(short)) == len(names):
            return dict(zip(names, short, strict=True))
    return {name: name for name in names}
