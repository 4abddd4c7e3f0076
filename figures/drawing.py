"""Figures of results, by the kinds of the results: which ones there are, which one is meant, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from wtacrs.estimators import InputError
from wtacrs.figures.given_axes import Given, GivenAxes, WrongNumberOfAxes
from wtacrs.figures.kinds import Drawing, View, view_of
from wtacrs.figures.sheet import Sheet, Size
from wtacrs.figures.style import DPI, NothingToDraw, SizeName, Style, save, wanted
from wtacrs.validation.records.base import Result

Loaded = tuple[Path, Result]
"""A result and the file that it was read from."""
_SHOWN = 4


def draw(
    result: Result | Sequence[Result],
    figure: str | None = None,
    *,
    ax: Given | None = None,
    size: Size | SizeName | None = None,
    style: Style | None = None,
    title: bool = True,
    dark: bool = False,
    **options: Any,
) -> Figure:
    """Draw a figure of a result, or of several that their kind shows side by side.

    Save it by `save(figure, "name.pdf")`.

    Args:
        result: of any kind that has figures.
        figure: its name, as in "oracle_ratio"; None for the first of the kind that takes all `options`.
        ax: axes of your own to draw into, exactly as many as the figure has panels, in reading order. The figure's title
            is left out, its legend goes into the first, and nothing else of your figure is touched. They have their size
            and style already: with either beside `ax` nothing is drawn.
        size: width and height in inches, as in (3.25, 2.5); as high as the figure needs with (3.25, None), "column" (3.25
            wide) or "page" (6.75 wide).
        style: name of a style of matplotlib, an .mplstyle file, or settings as in rcParams, over this project's own.
        title: False leaves out the title of the figure, where a caption says it; panels keep theirs.
        dark: for a dark page; not beside `ax`.
        **options: of the figure, such as `against="bytes"`.

    Returns:
        The new figure, or the one that `ax` belongs to.

    Raises:
        InputError: if the kind has no such figure or option, there is nothing to draw, there are too few or too
            many axes, or `size`, `style` or `dark` beside them.
    """
    several = [result] if isinstance(result, Result) else list(result)
    loaded = [(Path(f"result {place}"), each) for place, each in enumerate(several, start=1)]
    if dark and ax is not None:
        raise InputError(
            "dark=True: axes that are given (ax) have colours already; draw without ax for a dark page"
        )
    drawing, _ = _wanted_drawing(loaded, figure, options, spelled=str)
    with wanted(axes=ax, size=size, style=style, title=title):
        try:
            drawn: Any = drawing.build(**options)
        except WrongNumberOfAxes as error:
            raise WrongNumberOfAxes(f"{error}{f' ({drawing.fewer})' if drawing.fewer else ''}") from None
    if dark:
        drawn.darken()
    return drawn.figure if isinstance(drawn, GivenAxes) else drawn


def draw_one(
    results: Sequence[Loaded],
    out: Path,
    figure: str | None,
    options: Mapping[str, Any],
    chosen: Callable[[str, Sequence[str]], None] | None = None,
    **saved: Any,
) -> Path:
    """Draw one figure: the named one, else the first of the kind that takes all `options`.

    Args:
        results: of one kind.
        out: the file.
        figure: its name.
        options: of the figure.
        chosen: told the name of the figure that is drawn, and those of the others of the kind.
        **saved: `dark` for a dark page, `dpi` of PNG files.

    Raises:
        InputError: if the results are not of one kind, or several of a kind that is drawn one by one; if the kind has no
            such figure or the figure takes no such option; if there is nothing to draw, or `out` cannot be written.
    """
    drawing, others = _wanted_drawing(results, figure, options, spelled=_as_option)
    if chosen is not None:
        chosen(drawing.name, others)
    return _saved(drawing.build(**options), out, **saved)


def _as_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _wanted_drawing(
    results: Sequence[Loaded], figure: str | None, options: Mapping[str, Any], *, spelled: Callable[[str], str]
) -> tuple[Drawing, list[str]]:
    """The figure, and the names of the others."""
    subject, view = _together(results)
    drawings = drawings_of(subject, view, results[0])
    drawing = _chosen(drawings, results[0], figure, options, spelled=spelled)
    return drawing, [other.name for other in drawings if other is not drawing]


def _saved(fig: Sheet, out: Path, *, dark: bool = False, dpi: int = DPI) -> Path:
    if dark:
        fig.darken()
    return save(fig, out, dpi=dpi)


def draw_all(
    results: Sequence[Loaded],
    folder: Path | None,
    figure: str | None,
    skipped: Callable[[str, str], None],
    *,
    suffix: str = ".png",
    **saved: Any,
) -> list[Path]:
    """Draw every figure of every result, or only the named one, under its own name.

    Results of a kind that is shown side by side are drawn together.

    Args:
        results: of any kinds that have figures.
        folder: where the figures go; None for the folder of the result, or of the first where several are shown together.
        figure: the name of a figure, None for all.
        skipped: told the name of a figure for which there is nothing to draw, and why.
        suffix: ".png", ".pdf" or ".svg".
        **saved: `dark` for a dark page, `dpi` of PNG files.

    Raises:
        InputError: if a kind has no such figure, two figures would have one path, or one cannot be written.
    """
    planned: dict[Path, Drawing] = {}
    for group in _groups(results):
        subject, view = _together(group)
        drawings = drawings_of(subject, view, group[0])
        for drawing in (
            drawings if figure is None else [_chosen(drawings, group[0], figure, {}, spelled=_as_option)]
        ):
            path = (folder or group[0][0].parent) / f"{drawing.name}{suffix}"
            if path in planned:
                raise InputError(f"two results would be drawn as {path}: draw them apart, or say OUT.png")
            planned[path] = drawing
    written = []
    for path, drawing in planned.items():
        try:
            written.append(_saved(drawing.build(), path, **saved))
        except NothingToDraw as reason:
            if figure is not None:
                raise
            skipped(drawing.name, str(reason))
    return written


def drawings_of(subject: object, view: View, first: Loaded) -> Sequence[Drawing]:
    """The figures of a result, or of several together.

    Raises:
        InputError: if its kind has none.
    """
    if view.drawings is None:
        path, result = first
        raise InputError(f"{path}: kind {result.kind!r} has no figure: {view.no_figure}")
    return view.drawings(subject)


def _together(results: Sequence[Loaded]) -> tuple[object, View]:
    """What is drawn: one result, or the list of them where their kind is shown side by side."""
    kinds = list(dict.fromkeys(result.kind for _, result in results))
    if len(kinds) > 1:
        told = ", ".join(f"{path} ({result.kind})" for path, result in results)
        raise InputError(f"results of one kind make one figure, got {told}")
    view = view_of(kinds[0])
    if view.joint:
        return [result for _, result in results], view
    if len(results) > 1:
        raise InputError(
            f"results of kind {kinds[0]!r} are drawn one by one, got {', '.join(str(path) for path, _ in results)}"
        )
    return results[0][1], view


def _groups(results: Sequence[Loaded]) -> list[list[Loaded]]:
    """What is drawn together."""
    groups: dict[object, list[Loaded]] = {}
    for place, (path, result) in enumerate(results):
        groups.setdefault(result.kind if view_of(result.kind).joint else place, []).append((path, result))
    return list(groups.values())


def _chosen(
    drawings: Sequence[Drawing],
    first: Loaded,
    figure: str | None,
    options: Mapping[str, Any],
    *,
    spelled: Callable[[str], str],
) -> Drawing:
    path, result = first
    names = ", ".join(drawing.name for drawing in drawings)
    named = [drawing for drawing in drawings if figure in (None, drawing.name)]
    if not named:
        raise InputError(f"figure={figure!r} is no figure of {path}; kind {result.kind!r} has {names or 'none'}")
    taking = [drawing for drawing in named if set(options) <= set(drawing.options)]
    if not taking:
        which = f"figure {figure!r}" if figure else f"kind {result.kind!r}"
        there = {name for drawing in named for name in drawing.options}
        unknown = [spelled(name) for name in options if name not in there]
        told = "; ".join(
            f"{drawing.name} takes {', '.join(map(spelled, drawing.options)) or 'none'}"
            for drawing in named[:_SHOWN]
        )
        if unknown:
            raise InputError(f"{' and '.join(unknown)}: no option of {which} ({path}); {told}")
        raise InputError(f"{' and '.join(map(spelled, options))}: no figure of {which} takes all ({path}); {told}")
    return taking[0]
