"""The studies behind the commands: captures in; a result file, its figures and the typed result out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch

from wtacrs.estimators import Estimator, InputError, make, spec
from wtacrs.estimators.registry import missing_fields
from wtacrs.figures import theory as theory_figures
from wtacrs.figures import variance_budget, winner_sweep
from wtacrs.figures.style import NothingToDraw
from wtacrs.validation.captures import Captures
from wtacrs.validation.checks import check_estimator
from wtacrs.validation.claims import theory
from wtacrs.validation.comparison import SCORE_KINDS, ScoreKind, ZeroProduct, compare, layer_scores
from wtacrs.validation.equal_bytes import ByteRatio, byte_ratios, compare_equal_bytes
from wtacrs.validation.records import stamp
from wtacrs.validation.results import CheckResult, ComparisonResult, SweepResult, Verdict, write_result
from wtacrs.validation.significance import mean_test
from wtacrs.validation.theory_records import TheoryResult
from wtacrs.validation.winner_sweep import sweep_winners

Report = Callable[[str, int, int], None]
"""Called with what was just done, how many are done, and how many there are."""

DEFAULT_ESTIMATORS = ("topk", "crs", "wta_crs", 'wta_crs(winners="optimal")')
DEFAULT_BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)


def chosen_entries(captures: Captures, patterns: Sequence[str] | None) -> list[str]:
    """Entries of a captured file whose name, with or without `#batch`, fits one of the patterns (`*`, `?`, `[]`).

    Raises:
        InputError: if a pattern fits nothing.
    """
    if not patterns:
        return list(captures)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [
            entry
            for entry in captures
            if fnmatchcase(entry, pattern) or fnmatchcase(entry.rpartition("#")[0], pattern)
        ]
        if not found:
            some = ", ".join(captures.layers[:4]) + (" …" if len(captures.layers) > 4 else "")
            raise InputError(f"layers={pattern!r} fits none of the {len(captures.layers)} captured layers: {some}")
        chosen.update(dict.fromkeys(found))
    return [entry for entry in captures if entry in chosen]


def estimators_from(specs: Sequence[str], budgets: Sequence[int | float]) -> list[Estimator]:
    """Estimators from specs that may leave out the budget: each is built at every budget.

    Raises:
        InputError: on an unusable spec or budget.
    """
    found: dict[Estimator, None] = {}
    for text in specs:
        chosen = budgets if missing_fields(text) == ("budget",) else [None]
        found.update({make(text) if b is None else make(text, budget=b): None for b in chosen})
    return list(found)


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
    result = ComparisonResult(stamp=stamp(seed=seed, inputs=_source(captures)), rows=rows)
    write_result(out / "comparison.json", result)
    for against in variance_budget.X_LABELS:
        _draw(partial(variance_budget.draw, result, against=against), out / f"variance_{against}.png")
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
        made = stamp(seed=seed, inputs=_source(captures) | {"bytes": str(share), "draws": str(draws)})
        write_result(out / f"equal_bytes-{share:g}.json", ComparisonResult(stamp=made, rows=rows))
    return byte_ratios(found)


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
                sweeps.append(sweep_winners(entry, layer.x, layer.dy, budget, mask=layer.mask, scores=kind))
            except ZeroProduct as reason:
                if skipped is not None:
                    skipped(entry, str(reason))
        if report is not None:
            report(entry, done, len(entries))
    if not sweeps:
        raise InputError(f"captures={captures.path}: the exact product is zero in every chosen layer")
    result = SweepResult(stamp=stamp(seed=None, inputs=_source(captures) | {"budget": str(budget)}), sweeps=sweeps)
    write_result(out / "sweep.json", result)
    _draw(partial(winner_sweep.draw, result), out / "winner_sweep.png")
    return result


def check_study(
    estimator: Estimator,
    out: Path | None,
    *,
    captures: Captures | None = None,
    layers: Sequence[str] | None = None,
    draws: int = 2000,
    level: float = 1e-6,
    seed: int = 0,
    report: Report | None = None,
) -> CheckResult:
    """The law-book, and on captured layers a test of the mean at their real size; writes `check-<name>.json`.

    With captures, each half of the verdicts gets half of the level; that half is shared evenly by the layers.

    Raises:
        InputError: on an unusable level, number of draws or layer.
    """
    entries = [] if captures is None else chosen_entries(captures, layers)
    share = level / 2 if entries else level
    verdicts = check_estimator(estimator, level=share, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for done, entry in enumerate(entries, start=1):
        assert captures is not None
        verdicts.append(_layer_verdict(estimator, captures, entry, draws, share / len(entries), generator))
        if report is not None:
            report(entry, done, len(entries))
    inputs = {"level": str(level)} | ({} if captures is None else _source(captures))
    result = CheckResult(stamp=stamp(seed=seed, inputs=inputs), estimator=spec(estimator), verdicts=verdicts)
    if out is not None:
        write_result(out / f"check-{estimator.name}.json", result)
    return result


def theory_study(out: Path, *, seed: int = 0, report: Report | None = None) -> TheoryResult:
    """Every claim of the theory in exact numbers; writes `theory.json` and `theory_<claim>.png` for each.

    Raises:
        InputError: on an unusable seed.
    """
    result = theory(seed=seed, progress=report)
    write_result(out / "theory.json", result)
    theory_figures.draw(result, out)
    return result


def _layer_verdict(
    estimator: Estimator, captures: Captures, entry: str, draws: int, level: float, generator: torch.Generator
) -> Verdict:
    law = f"mean on {entry}"
    if not estimator.traits.unbiased:
        return Verdict(law=law, status="not applicable", detail="the estimator does not claim to be unbiased")
    layer = captures[entry]
    scores = layer_scores("row norms", layer.x, layer.dy, layer.mask)
    found = mean_test(estimator, layer.x, layer.dy, draws=draws, level=level, scores=scores, generator=generator)
    detail = (
        f"p = {found.p_value:.2g} at level {level:.1g} over {draws} draws; largest |t| {found.statistic:.1f}; "
        f"a bias of {found.detectable:.2g} ‖G‖ along one direction would be seen with 99 % power"
    )
    return Verdict(law=law, status="fail" if found.rejected else "pass", detail=detail)


def _draw(draw: Callable[[Path], object], path: Path) -> None:
    """Draw, or take away an older figure where there is nothing to draw."""
    try:
        draw(path)
    except NothingToDraw:
        path.unlink(missing_ok=True)


def _source(captures: Captures) -> dict[str, str]:
    described = {key: str(value) for key, value in captures.metadata.items()}
    return {"captures": captures.path.name, **described}
