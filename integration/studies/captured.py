"""What the studies of captured layers share: which layers, which estimators, where the numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from wtacrs.estimators import Estimator, InputError, make
from wtacrs.estimators.core.sizing import missing_size, sized
from wtacrs.figures.style import NothingToDraw
from wtacrs.validation.layers.captures import Captures


def chosen_entries(captures: Captures, patterns: Sequence[str] | None) -> list[str]:
    """Entries of a captured file whose name, with or without `#batch`, fits one of the patterns (`*`, `?`, `[]`).

    Raises:
        InputError: if a pattern fits nothing.
    """
    return chosen_of_files([captures], patterns)[0]


def chosen_of_files(files: Sequence[Captures], patterns: Sequence[str] | None) -> list[list[str]]:
    """The chosen entries of every file, as `chosen_entries`: architectures differ, so a file may have none that fits.

    Raises:
        InputError: if a pattern fits nothing in any file, naming them.
    """
    if not patterns:
        return [list(captures) for captures in files]
    for pattern in patterns:
        if not any(_fits(entry, pattern) for captures in files for entry in captures):
            count = sum(len(captures.layers) for captures in files)
            there = "; ".join(map(_some_layers, files))
            raise InputError(f"layers={pattern!r} fits none of the {count} captured layers: {there}")
    return [[entry for entry in captures if any(_fits(entry, p) for p in patterns)] for captures in files]


def _fits(entry: str, pattern: str) -> bool:
    return fnmatchcase(entry, pattern) or fnmatchcase(entry.rpartition("#")[0], pattern)


def _some_layers(captures: Captures) -> str:
    return f"{captures.path.name}: {', '.join(captures.layers[:4])}{' …' if len(captures.layers) > 4 else ''}"


def at_budget(spec: str, budget: int | float) -> Estimator:
    """The estimator of a spec that leaves its budget out, or has `{budget}` where it belongs.

    >>> at_budget("crs", 0.3), at_budget("control_variate(rank=4, rows=crs(budget={budget}))", 8).rows
    (crs(budget=0.3), crs(budget=8))

    Raises:
        InputError: on a spec that has a budget already or is unusable, or an unusable budget.
    """
    if "{budget}" in spec:
        return make(spec.replace("{budget}", repr(budget)))
    if missing_size(spec) == "budget":
        return sized(spec, budget)
    make(spec)  # a spec that is unusable altogether says so itself
    raise InputError(
        f"estimator={spec!r}: leave the budget out, as in 'wta_crs', or write {{budget}} for it: it is given apart"
    )


def device_name(device: str) -> str:
    """What the stamp of a result says of a device."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def draw_or_remove(draw: Callable[[Path], object], path: Path) -> None:
    """Draw, or take away an older figure where there is nothing to draw."""
    try:
        draw(path)
    except NothingToDraw:
        path.unlink(missing_ok=True)


def source_of(captures: Captures) -> dict[str, str]:
    """What the stamp of a result says about the captures."""
    described = {key: str(value) for key, value in captures.metadata.items()}
    return {"captures": captures.path.name, **described}
