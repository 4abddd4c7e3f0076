"""What a study leaves behind: what the stamp of its result says, and figures where there is something to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from wtacrs.figures.style import NothingToDraw
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Runner

Drawer = Callable[[Path], object]
"""Draws a figure into a file."""


def device_name(device: str) -> str:
    """What the stamp of a result says of a device."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def source_of(captures: Captures) -> dict[str, str]:
    """What the stamp of a result says about the captures."""
    described = {key: str(value) for key, value in captures.metadata.items()}
    return {"captures": captures.path.name, **described}


def keep(result: Result, out: str | Path | None, name: str, runner: Runner, figures: Mapping[str, Drawer]) -> None:
    """Write the result and its figures into a folder, in the place of the parts that a runner kept there.

    Args:
        result: of a study.
        out: the folder; nothing is written if None.
        name: of the file of the result.
        runner: whose parts are no longer needed.
        figures: what draws each, by the name of its file.
    """
    if out is None:
        return
    out = Path(out)
    write_result(out / name, result)
    runner.forget()
    for file, draw in figures.items():
        draw_or_remove(draw, out / file)


def draw_or_remove(draw: Drawer, path: Path) -> None:
    """Draw, or remove an older figure where there is nothing to draw."""
    try:
        draw(path)
    except NothingToDraw:
        path.unlink(missing_ok=True)
