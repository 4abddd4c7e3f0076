"""The |C| sweep over captured layers: result file and figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from wtacrs.estimators import InputError
from wtacrs.figures import winner_sweep
from wtacrs.integration.studies import Report, chosen_entries, draw_or_remove, source_of
from wtacrs.validation.captures import Captures
from wtacrs.validation.comparison import ZeroProduct
from wtacrs.validation.records import stamp
from wtacrs.validation.results import SweepResult, write_result
from wtacrs.validation.score_kinds import ScoreKind
from wtacrs.validation.winner_sweep import sweep_winners


def sweep_study(
    captures: Captures,
    budget: int | float,
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] = ("oracle",),
    report: Report | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> SweepResult:
    """Exact variance of WTA-CRS for every |C|, layer by layer; writes `sweep.json` and `winner_sweep.png`.

    Raises:
        InputError: on an unusable budget or layer.
    """
    entries = chosen_entries(captures, layers)
    sweeps = []
    for done, entry in enumerate(entries, start=1):
        layer = captures[entry]
        for kind in scores:
            try:
                sweeps.append(
                    sweep_winners(
                        entry, layer.x, layer.dy, budget, mask=layer.mask, stale=layer.stale, scores=kind
                    )
                )
            except ZeroProduct as reason:
                if skipped is not None:
                    skipped(entry, str(reason))
        if report is not None:
            report(entry, done, len(entries))
    if not sweeps:
        raise InputError(f"captures={captures.path}: the exact product is zero in every chosen layer")
    result = SweepResult(
        stamp=stamp(seed=None, inputs=source_of(captures) | {"budget": str(budget)}), sweeps=sweeps
    )
    write_result(out / "sweep.json", result)
    draw_or_remove(partial(winner_sweep.draw, result), out / "winner_sweep.png")
    return result
