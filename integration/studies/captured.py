"""What the studies of captured layers share: which layers, which estimators, where the numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from wtacrs.estimators import Estimator, InputError, make
from wtacrs.estimators.core.sizing import missing_size, sized
from wtacrs.figures.style import NothingToDraw
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.patterns import check_patterns, first_few, fits

CAPTURED = "captured layers"
"""What patterns choose among, in messages."""


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
    layers = [layer for captures in files for layer in captures.layers]
    entries = [entry for captures in files for entry in captures]
    there = "; ".join(f"{captures.path.name}: {first_few(captures.layers)}" for captures in files)
    check_patterns(patterns, layers, what=CAPTURED, synonyms=entries, there=there)
    return [
        [entry for entry in captures if fits(entry, patterns) or fits(entry.rpartition("#")[0], patterns)]
        for captures in files
    ]


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
