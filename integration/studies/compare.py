"""Estimators side by side on captured layers: result file and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from wtacrs.estimators import Estimator, InputError, make
from wtacrs.estimators.core.references import is_reference
from wtacrs.estimators.core.sizing import sized
from wtacrs.figures.plots import comparison, oracle_ratio
from wtacrs.integration.studies.layer_choice import chosen_entries
from wtacrs.integration.studies.output import Drawer, device_name, keep, source_of
from wtacrs.validation.benchmarks.over_exact import times_over_exact
from wtacrs.validation.layers.candidates import RECOMMENDED, Candidate, candidates_from
from wtacrs.validation.layers.captures import Captures, on_device, opened_captures
from wtacrs.validation.layers.compare import DRAWS, STEPS, compare
from wtacrs.validation.layers.equal_bytes import BASELINE, DEFAULT_CANDIDATES
from wtacrs.validation.properties.external_estimators import ExternalEstimator, ExternalProduct
from wtacrs.validation.properties.external_kinds import external_piece, takes
from wtacrs.validation.records.base import ScoreKind, stamp
from wtacrs.validation.records.compare import ComparisonResult, ComparisonRow
from wtacrs.validation.runner import Runner
from wtacrs.validation.seeds import checked_seed

DEFAULT_ESTIMATORS = ("topk", "crs", "wta_crs", 'wta_crs(winners="optimal")', "systematic")
DEFAULT_BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
DEFAULT_SHARES = (0.1, 0.3)


def candidates_of(
    specs: Sequence[str | Estimator] | None,
    budgets: Sequence[int | float] | None,
    shares: Sequence[float] | None,
    at_shares: Sequence[str] = (),
) -> list[Candidate]:
    """What to compare: the given estimators, or the usual ones, at equal rows, at equal bytes, or at both.

    With neither budgets nor shares both have their defaults. Somebody else's products and layers, by reference, stand
    beside the estimators at equal rows, and beside the usual ones if no other is named. At equal bytes the paper's
    WTA-CRS is always there, for the others to be measured by.

    Args:
        specs: estimators, or their specs; the usual ones if None.
        budgets: for those without a budget of their own.
        shares: of the bytes.
        at_shares: estimators that are compared at equal bytes only.

    Raises:
        InputError: on an unusable spec, budget or share.
    """
    if not budgets and not shares:
        budgets, shares = DEFAULT_BUDGETS, DEFAULT_SHARES
    named, pieces = pieces_of(specs or (), budgets or DEFAULT_BUDGETS)
    found = list(pieces)
    if budgets:
        at_both = candidates_from(named or DEFAULT_ESTIMATORS, budgets, shares or ())
        found += [candidate for candidate in at_both if candidate.share is None]
    if shares:
        others = [
            given
            for given in (*(named or DEFAULT_CANDIDATES), *at_shares)
            if given in RECOMMENDED or sized(given) != sized(BASELINE)
        ]
        found += candidates_from([BASELINE, *others], (), shares)
    return list(dict.fromkeys(found))


def comparison_study(
    captures: Captures | str | Path,
    candidates: Sequence[Candidate] | Sequence[str | Estimator] | None = None,
    out: str | Path | None = None,
    *,
    budgets: Sequence[int | float] | None = None,
    shares: Sequence[float] | None = None,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] | None = None,
    steps: int = STEPS,
    draws: int = DRAWS,
    seed: int = 0,
    device: str = "cpu",
    runner: Runner | None = None,
) -> ComparisonResult:
    """Compare estimators over captured layers; writes `comparison.json`, `variance_<axis>.png`, `oracle_ratio.png`.

    Args:
        captures: opened, or the name of the file.
        candidates: what is compared: estimators, their specs, references to code ("mine.py:estimate"), or `Candidate`s,
            which have their sizes; the usual estimators if None.
        out: folder of the files; nothing is written if None.
        budgets: fractions or numbers of rows, for estimators without a budget.
        shares: of the bytes of x, for comparisons at equal bytes. With neither, budgets and shares have their defaults.
        layers: patterns of entries; all if None.
        scores: kinds of scores; those that the captures have if None.
        steps: independent estimates whose mean `mse_of_mean` is about.
        draws: Monte Carlo draws where there is no closed form.
        seed: of the draws.
        device: where estimators run.
        runner: processes, machines, resumption and progress.

    Raises:
        InputError: on an unusable estimator, size or layer; the runner keeps finished parts.
    """
    seed = checked_seed(seed)
    captures = opened_captures(captures)
    candidates = _candidates(candidates, budgets, shares)
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
    if any(isinstance(candidate.estimator, ExternalEstimator) for candidate in candidates):
        rows = _timed(captures, rows, candidates, device)
    if not rows:
        raise InputError(
            f"captures={captures.path}: no chosen layer has a product other than zero and rows enough for the bytes"
        )
    _tell_misfits(candidates, rows, runner)
    result = ComparisonResult(
        stamp=stamp(seed=seed, device=device_name(device), inputs=source_of(captures)), rows=rows
    )
    figures: dict[str, Drawer] = {
        "comparison.png": partial(comparison.draw, result),
        "oracle_ratio.png": partial(oracle_ratio.draw, result),
    }
    keep(result, out, "comparison.json", runner, figures)
    return result


def _candidates(
    given: Sequence[Candidate] | Sequence[str | Estimator] | None,
    budgets: Sequence[int | float] | None,
    shares: Sequence[float] | None,
) -> Sequence[Candidate]:
    if isinstance(given, (str, Estimator)):
        raise InputError(f"candidates={given!r} must be a list, or the like, of estimators")
    sized_already = [one for one in given or () if isinstance(one, Candidate)]
    if not sized_already:
        return candidates_of([one for one in given or () if not isinstance(one, Candidate)], budgets, shares)
    if len(sized_already) < len(given or ()) or budgets or shares:
        raise InputError(
            "candidates: `Candidate`s have their sizes, and stand beside neither specs, budgets nor shares"
        )
    return sized_already


def pieces_of(
    texts: Sequence[str | Estimator], budgets: Sequence[int | float]
) -> tuple[list[str | Estimator], list[Candidate]]:
    """Estimators among these specs and references, and the products and layers.

    A product that asks for k, and what asks for a `budget`, is taken at every budget; any other as it is.

    Raises:
        InputError: on what cannot be found, imported or run.
    """
    specs: list[str | Estimator] = []
    found: list[Candidate] = []
    for text in texts:
        if not isinstance(text, str) or not is_reference(text):
            specs.append(text)
        elif takes(text, "budget"):
            sized_pieces = [external_piece(text, budget=budget) for budget in budgets]
            found += [Candidate(piece) for piece in sized_pieces if piece is not None]
            specs += [text] if None in sized_pieces else []
        elif (piece := external_piece(text)) is None:
            specs.append(text)
        elif isinstance(piece, ExternalProduct) and piece.form == "k":
            found += [Candidate(replace(piece, budget=budget)) for budget in budgets]
        else:
            found.append(Candidate(piece))
    return specs, found


def _timed(
    captures: Captures, rows: Sequence[ComparisonRow], candidates: Sequence[Candidate], device: str
) -> list[ComparisonRow]:
    """The rows with their times, found here and in no other process; rows at equal bytes have none."""
    measured = {candidate.text: candidate.estimator for candidate in candidates if candidate.share is None}
    times: dict[tuple[str, str], float] = {}
    for layer in dict.fromkeys(row.layer for row in rows):
        names = dict.fromkeys(row.estimator for row in rows if row.layer == layer and row.bytes_share is None)
        estimators = [make(measured[name]) for name in names]
        capture = on_device(captures[layer], device)
        found = times_over_exact(capture.x, capture.dy, estimators)
        times |= {(layer, name): time for name, time in zip(names, found, strict=True)}
    return [
        row if row.bytes_share is not None else row.model_copy(update={"time": times[row.layer, row.estimator]})
        for row in rows
    ]


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
