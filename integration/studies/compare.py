"""Estimators side by side on captured layers: result file and figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from wtacrs.estimators import InputError
from wtacrs.estimators.core.sizing import sized
from wtacrs.figures.plots import oracle_ratio, variance_budget
from wtacrs.integration.studies.layer_choice import chosen_entries
from wtacrs.integration.studies.output import device_name, draw_or_remove, source_of
from wtacrs.validation.layers.candidates import RECOMMENDED, Candidate, candidates_from
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.layers.compare import DRAWS, STEPS, compare
from wtacrs.validation.layers.equal_bytes import BASELINE, DEFAULT_CANDIDATES
from wtacrs.validation.records.base import ScoreKind, stamp
from wtacrs.validation.records.compare import ComparisonResult, ComparisonRow
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Runner
from wtacrs.validation.seeds import checked_seed

DEFAULT_ESTIMATORS = ("topk", "crs", "wta_crs", 'wta_crs(winners="optimal")', "systematic")
DEFAULT_BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
DEFAULT_SHARES = (0.1, 0.3)


def candidates_of(
    specs: Sequence[str] | None,
    budgets: Sequence[int | float] | None,
    shares: Sequence[float] | None,
    at_shares: Sequence[str] = (),
) -> list[Candidate]:
    """What to compare: the given estimators, or the usual ones, at equal rows, at equal bytes, or at both.

    With neither budgets nor shares both have their defaults. At equal bytes the paper's WTA-CRS is always there, for
    the others to be measured by.

    Args:
        specs: estimators; the usual ones if None.
        budgets: for those without a budget of their own.
        shares: of the bytes.
        at_shares: estimators that are compared at equal bytes only.

    Raises:
        InputError: on an unusable spec, budget or share.
    """
    if not budgets and not shares:
        budgets, shares = DEFAULT_BUDGETS, DEFAULT_SHARES
    found: list[Candidate] = []
    if budgets:
        at_both = candidates_from(specs or DEFAULT_ESTIMATORS, budgets, shares or ())
        found += [candidate for candidate in at_both if candidate.share is None]
    if shares:
        others = [
            given
            for given in (*(specs or DEFAULT_CANDIDATES), *at_shares)
            if given in RECOMMENDED or sized(given) != sized(BASELINE)
        ]
        found += candidates_from([BASELINE, *others], (), shares)
    return list(dict.fromkeys(found))


def comparison_study(
    captures: Captures,
    candidates: Sequence[Candidate],
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] | None = None,
    steps: int = STEPS,
    draws: int = DRAWS,
    seed: int = 0,
    device: str = "cpu",
    runner: Runner | None = None,
) -> ComparisonResult:
    """Compare estimators over captured layers: `comparison.json`, `variance_<axis>.png`, `oracle_ratio.png`.

    Raises:
        InputError: on an unusable estimator or layer; the runner keeps finished parts.
    """
    seed = checked_seed(seed)
    runner = Runner() if runner is None else runner
    rows = compare(
        captures,
        candidates,
        layers=chosen_entries(captures, layers),
        scores=scores,
        steps=steps,
        draws=draws,
        seed=seed,
        device=device,
        runner=runner,
    )
    if not rows:
        raise InputError(
            f"captures={captures.path}: no chosen layer has a product other than zero and rows enough for the bytes"
        )
    _tell_misfits(candidates, rows, runner)
    result = ComparisonResult(
        stamp=stamp(seed=seed, device=device_name(device), inputs=source_of(captures)), rows=rows
    )
    write_result(out / "comparison.json", result)
    runner.forget()
    for against in variance_budget.X_LABELS:
        draw_or_remove(partial(variance_budget.draw, result, against=against), out / f"variance_{against}.png")
    draw_or_remove(partial(oracle_ratio.draw, result), out / "oracle_ratio.png")
    return result


def _tell_misfits(candidates: Sequence[Candidate], rows: Sequence[ComparisonRow], runner: Runner) -> None:
    """Name the estimators that do not fit their share of the bytes, with the number of layers."""
    layers = {row.layer for row in rows}
    for candidate in candidates:
        if candidate.share is None or runner.skipped is None:
            continue
        fitting = {
            row.layer for row in rows if (row.requested, row.bytes_share) == (candidate.text, candidate.share)
        }
        if len(fitting) < len(layers):
            told = f"{candidate.text} does not fit {candidate.share:.3g} of the bytes of"
            runner.skipped(candidate.text, f"{told} {len(layers) - len(fitting)} of {len(layers)} layers")
