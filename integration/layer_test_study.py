"""Tests of estimators on captured layers: the result file and its figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wtacrs.estimators import Estimator, InputError, make, spec
from wtacrs.estimators.registry import missing_fields
from wtacrs.figures import layer_tests as figure
from wtacrs.integration.studies import Report, chosen_entries, draw_or_remove, estimators_from, source_of
from wtacrs.validation.captures import Captures
from wtacrs.validation.comparison import ScoreKind, ZeroProduct, budget_of
from wtacrs.validation.layer_test_records import LayerTest, LayerTestResult
from wtacrs.validation.layer_tests import adjusted_for_families, examine_entry
from wtacrs.validation.one_sample import check_sample
from wtacrs.validation.records import stamp
from wtacrs.validation.results import write_result
from wtacrs.validation.variance_ratio import LEAST_DRAWS, Quantity

BASELINE = "wta_crs"


class Examination(NamedTuple):
    """Arguments of `examine_entry`, in its order."""

    captures: str
    entry: str
    estimator: str
    against: str | None
    scores: ScoreKind
    draws: int
    level: float
    seed: int
    quantity: Quantity


def layer_test_study(
    captures: Captures,
    specs: Sequence[str],
    budgets: Sequence[int | float],
    out: Path | None,
    *,
    against: str | None = BASELINE,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] = ("row norms",),
    quantity: Quantity = "variance",
    draws: int = 500,
    level: float = 0.01,
    seed: int = 0,
    report: Report | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> LayerTestResult:
    """Test every estimator on every captured layer; writes `layer_tests.json` and `layer_tests.png`.

    Args:
        captures: opened file.
        specs: estimators; one without a budget is taken at every budget.
        budgets: fractions or numbers of rows.
        out: folder for the files; nothing is written if None.
        against: spec of the baseline; without a budget it takes that of the estimator. None for no comparison.
        layers: patterns of entries; all if None.
        scores: kinds of scores; an estimator that ignores them is tested under the first kind only.
        quantity: what is compared with the baseline.
        draws: per layer and estimator, fixed beforehand.
        level: of each of the three families of tests over all layers and estimators.
        seed: every layer and estimator draws from a seed derived from it.
        report: told of every entry that is done.
        skipped: told of every layer whose exact product is zero.

    Raises:
        InputError: on an unusable argument, or if every chosen layer has the product zero.
    """
    check_sample(draws, level, LEAST_DRAWS)
    entries = chosen_entries(captures, layers)
    estimators = estimators_from(specs, budgets)
    baselines = [_baseline(estimator, against) for estimator in estimators]
    tests: list[LayerTest] = []
    for done, entry in enumerate(entries, start=1):
        try:
            for estimator, baseline in zip(estimators, baselines, strict=True):
                for kind in scores if estimator.traits.uses_scores else scores[:1]:
                    work = Examination(
                        str(captures.path), entry, spec(estimator), baseline, kind, draws, level, seed, quantity
                    )
                    tests.append(examine_entry(*work))
        except ZeroProduct as reason:
            if skipped is not None:
                skipped(entry, str(reason))
        if report is not None:
            report(entry, done, len(entries))
    if not tests:
        raise InputError(f"captures={captures.path}: the exact product is zero in every chosen layer")
    inputs = source_of(captures) | {"draws": str(draws), "against": str(against), "quantity": quantity}
    result = LayerTestResult(
        stamp=stamp(seed=seed, inputs=inputs), level=level, tests=adjusted_for_families(tests, level)
    )
    if out is not None:
        write_result(out / "layer_tests.json", result)
        draw_or_remove(partial(figure.draw, result), out / "layer_tests.png")
    return result


def _baseline(estimator: Estimator, against: str | None) -> str | None:
    """The baseline's spec at the estimator's budget; None if it needs a budget and the estimator has none."""
    if against is None:
        return None
    if "budget" not in missing_fields(against):
        return spec(make(against))
    budget = budget_of(estimator)
    return None if budget is None else spec(make(against, budget=budget))
