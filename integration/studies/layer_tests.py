"""Tests of estimators on captured layers: the result file and its figure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from wtacrs.estimators import Estimator, InputError, make, spec
from wtacrs.estimators.core.sizing import budget_of, missing_size, sized
from wtacrs.figures.plots import layer_tests as figure
from wtacrs.integration.studies.compare import pieces_of
from wtacrs.integration.studies.layer_choice import chosen_entries
from wtacrs.integration.studies.output import device_name, keep, source_of
from wtacrs.validation.layers.candidates import candidates_from
from wtacrs.validation.layers.captures import Captures, opened_captures
from wtacrs.validation.layers.layer_tests import LIMIT, adjusted_for_families, demand_of, examine_entry
from wtacrs.validation.properties.external_estimators import ExternalEstimator
from wtacrs.validation.records.base import ScoreKind, stamp
from wtacrs.validation.records.layer_tests import BIAS, POWER, LayerTest, LayerTestResult
from wtacrs.validation.runner import Runner, Task, code_mark, file_mark
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.statistics.variance_ratio import Quantity

BASELINE = "wta_crs"
DEFAULT_BUDGETS = (0.3,)


def layer_test_study(
    captures: Captures | str | Path,
    specs: Sequence[str | Estimator],
    budgets: Sequence[int | float] = DEFAULT_BUDGETS,
    out: str | Path | None = None,
    *,
    against: str | None = BASELINE,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] = ("row-norms",),
    quantity: Quantity = "variance",
    draws: int = 500,
    level: float = 0.01,
    seed: int = 0,
    device: str = "cpu",
    bias: float = BIAS,
    power: float = POWER,
    limit: float = LIMIT,
    runner: Runner | None = None,
) -> LayerTestResult:
    """Test every estimator on every captured layer; writes `layer_tests.json` and `layer_tests.png`.

    Args:
        captures: opened, or the name of the file.
        specs: estimators, their specs, or references to products and layers as `wtacrs check` takes them; one
            without a budget is taken at every budget.
        budgets: fractions or numbers of rows.
        out: folder for the files; nothing is written if None.
        against: spec of the baseline; without a budget it takes that of the estimator. None for no comparison.
        layers: patterns of entries; all if None.
        scores: kinds of scores; an estimator that ignores them is tested under the first kind only.
        quantity: what is compared with the baseline.
        draws: of the first stage, per layer and estimator, fixed beforehand.
        level: of each of the three families of tests over all layers and estimators.
        seed: every layer and estimator draws from a seed derived from it.
        device: where the products are computed.
        bias: to be ruled out along the exact product, as a share of its norm.
        power: with which a bias of that size would be seen, in the whole family.
        limit: seconds for the test of one mean; a stage that would end later is not begun.
        runner: processes, machines, resumption and progress.

    Raises:
        InputError: on an unusable argument, if every chosen layer has the product zero, or where external code raises.
    """
    seed = checked_seed(seed)
    demand_of(draws, level, bias, power, limit)
    captures = opened_captures(captures)
    entries = chosen_entries(captures, layers)
    estimators = _estimators(specs, budgets)
    runner = Runner() if runner is None else runner
    pieces = [
        (entry, estimator, _baseline(estimator, against), kind)
        for entry in entries
        for estimator in estimators
        for kind in (scores if estimator.traits.uses_scores else scores[:1])
    ]
    options = (draws, level, seed, quantity, device, bias, power, limit, len(pieces))
    tasks = []
    for entry, estimator, baseline, kind in pieces:
        mark = file_mark(captures.path) + code_mark((estimator, baseline))
        key = f"test {mark} {entry} {estimator} {baseline} {kind} {options}"
        arguments = (captures.path, entry, estimator, baseline, kind, *options)
        tasks.append(Task(key=key, work=examine_entry, arguments=arguments, label=entry))
    tests = runner.run(LayerTest, tasks)
    if not tests:
        raise InputError(f"captures={captures.path}: the exact product is zero in every chosen layer")
    inputs = source_of(captures) | {"draws": str(draws), "against": str(against), "quantity": quantity}
    inputs |= {"bias": str(bias), "power": str(power), "limit": str(limit)}
    result = LayerTestResult(
        stamp=stamp(seed=seed, device=device_name(device), inputs=inputs),
        level=level,
        tests=adjusted_for_families(tests, level),
    )
    keep(result, out, "layer_tests.json", runner, {"layer_tests.png": partial(figure.draw, result)})
    return result


def _estimators(texts: Sequence[str | Estimator], budgets: Sequence[int | float]) -> list[Estimator]:
    specs, pieces = pieces_of(texts, budgets)
    named = candidates_from(specs, budgets) if specs or not pieces else []
    return [make(candidate.estimator) for candidate in (*named, *pieces)]


def _baseline(estimator: Estimator, against: str | None) -> Estimator | None:
    """The baseline at the estimator's budget; None if it needs a budget and the estimator has none."""
    if against is None:
        return None
    if missing_size(against) != "budget":
        return make(against)
    # the label of a product that asks for k tells its budget, as a spec does
    budget = budget_of(spec(estimator) if isinstance(estimator, ExternalEstimator) else estimator)
    return None if budget is None else sized(against, budget)
