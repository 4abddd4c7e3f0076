"""Figures of results, by the kinds of the results: which ones there are, which one is meant, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.kinds import Drawing, View, view_of
from wtacrs.validation.records.base import Result

Loaded = tuple[Path, Result]
"""A result and the file that it was read from."""


def draw_one(results: Sequence[Loaded], out: Path, figure: str | None, options: Mapping[str, Any]) -> Path:
    """Draw one figure: the named one, else the first of the kind that takes all `options`.

    Raises:
        InputError: if the results are not of one kind, or several of a kind that is drawn one by one; if the kind has no
            such figure or the figure takes no such option; if there is nothing to draw, or `out` cannot be written.
    """
    subject, view = _together(results)
    drawing = _chosen(drawings_of(subject, view, results[0]), results[0], figure, options)
    return style.save(drawing.build(**options), out)


def draw_all(
    results: Sequence[Loaded], folder: Path | None, figure: str | None, skipped: Callable[[str, str], None]
) -> list[Path]:
    """Draw every figure of every result, or only the named one, under its own name.

    Results of a kind that is shown side by side are drawn together.

    Args:
        results: of any kinds that have figures.
        folder: where the figures go; None for the folder of the result, or of the first where several are shown together.
        figure: the name of a figure, None for all.
        skipped: told the name of a figure for which there is nothing to draw, and why.

    Raises:
        InputError: if a kind has no such figure, two figures would have one path, or one cannot be written.
    """
    planned: dict[Path, Drawing] = {}
    for group in _groups(results):
        subject, view = _together(group)
        drawings = drawings_of(subject, view, group[0])
        for drawing in drawings if figure is None else [_chosen(drawings, group[0], figure, {})]:
            path = (folder or group[0][0].parent) / f"{drawing.name}.png"
            if path in planned:
                raise InputError(f"two results would be drawn as {path}: draw them apart, or say OUT.png")
            planned[path] = drawing
    written = []
    for path, drawing in planned.items():
        try:
            written.append(style.save(drawing.build(), path))
        except style.NothingToDraw as reason:
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
        raise InputError(f"result file {path}: kind {result.kind!r} has no figure: {view.no_figure}")
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


def _chosen(drawings: Sequence[Drawing], first: Loaded, figure: str | None, options: Mapping[str, Any]) -> Drawing:
    path, result = first
    names = ", ".join(drawing.name for drawing in drawings)
    named = [drawing for drawing in drawings if figure in (None, drawing.name)]
    if not named:
        raise InputError(f"figure={figure!r} is no figure of {path}; kind {result.kind!r} has {names or 'none'}")
    taking = [drawing for drawing in named if set(options) <= set(drawing.options)]
    if not taking:
        told = " and ".join(f"--{name.replace('_', '-')}" for name in options)
        which = f"figure {figure!r}" if figure else f"kind {result.kind!r}"
        raise InputError(f"{told}: no option of {which} (file {path})")
    return taking[0]
