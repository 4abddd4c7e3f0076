"""Estimators side by side on captured layers: result files and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from wtacrs.estimators import InputError
from wtacrs.figures import variance_budget
from wtacrs.integration.studies import Report, chosen_entries, draw_or_remove, estimators_from, source_of
from wtacrs.validation.captures import Captures
from wtacrs.validation.comparison import SCORE_KINDS, compare
from wtacrs.validation.equal_bytes import ByteRatio, byte_ratios, compare_equal_bytes
from wtacrs.validation.records import ScoreKind, stamp
from wtacrs.validation.results import ComparisonResult, write_result

DEFAULT_ESTIMATORS = ("topk", "crs", "wta_crs", 'wta_crs(winners="optimal")')
DEFAULT_BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)


def comparison_study(
    captures: Captures,
    specs: Sequence[str],
    budgets: Sequence[int | float],
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] = SCORE_KINDS,
    draws: int = 1000,
    seed: int = 0,
    report: Report | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> ComparisonResult:
    """Compare estimators over captured layers: `comparison.json`, and `variance_<axis>.png` for every axis.

    A spec without a budget is taken at every budget, a spec with one as it is.

    Raises:
        InputError: on an unusable spec, budget or layer.
    """
    rows = compare(
        captures,
        estimators_from(specs, budgets),
        layers=chosen_entries(captures, layers),
        scores=scores,
        draws=draws,
        generator=torch.Generator().manual_seed(seed),
        progress=report,
        skipped=skipped,
    )
    if not rows:
        raise InputError(f"captures={captures.path}: the exact product is zero in every chosen layer")
    result = ComparisonResult(stamp=stamp(seed=seed, inputs=source_of(captures)), rows=rows)
    write_result(out / "comparison.json", result)
    for against in variance_budget.X_LABELS:
        draw_or_remove(partial(variance_budget.draw, result, against=against), out / f"variance_{against}.png")
    return result


def equal_bytes_study(
    captures: Captures,
    shares: Sequence[float],
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] = SCORE_KINDS,
    draws: int = 32,
    seed: int = 0,
    report: Report | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> list[ByteRatio]:
    """The paper's WTA-CRS and `recommended` at equal bytes; writes `equal_bytes-<share>.json` for every share.

    Raises:
        InputError: on an unusable share or layer, or if every layer is too small.
    """
    found = compare_equal_bytes(
        captures,
        shares,
        layers=chosen_entries(captures, layers),
        scores=scores,
        draws=draws,
        generator=torch.Generator().manual_seed(seed),
        progress=report,
        skipped=skipped,
    )
    for share, rows in found.items():
        if not rows:
            raise InputError(f"captures={captures.path}: every chosen layer is too small for bytes={share:g}")
        made = stamp(seed=seed, inputs=source_of(captures) | {"bytes": str(share), "draws": str(draws)})
        write_result(out / f"equal_bytes-{share:g}.json", ComparisonResult(stamp=made, rows=rows))
    return byte_ratios(found)
