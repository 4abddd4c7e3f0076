"""What a study leaves behind: what the stamp of its result says, and figures where there is something to draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from wtacrs.figures.style import NothingToDraw
from wtacrs.validation.layers.captures import Captures


def device_name(device: str) -> str:
    """What the stamp of a result says of a device."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def source_of(captures: Captures) -> dict[str, str]:
    """What the stamp of a result says about the captures."""
    described = {key: str(value) for key, value in captures.metadata.items()}
    return {"captures": captures.path.name, **described}


def draw_or_remove(draw: Callable[[Path], object], path: Path) -> None:
    """Draw, or remove an older figure where there is nothing to draw."""
    try:
        draw(path)
    except NothingToDraw:
        path.unlink(missing_ok=True)
