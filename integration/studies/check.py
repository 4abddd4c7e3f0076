"""The list of properties, and the test of the mean on captured layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from wtacrs.estimators import Estimator, spec
from wtacrs.integration.studies.layer_choice import chosen_entries
from wtacrs.integration.studies.output import source_of
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.layers.scores import layer_scores
from wtacrs.validation.problems import Problem
from wtacrs.validation.properties.checks import check_estimator, check_external
from wtacrs.validation.properties.external_estimators import ExternalLinear, ExternalProduct
from wtacrs.validation.properties.external_kinds import file_stem
from wtacrs.validation.properties.mean_report import MeanTracker
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.check import CheckResult, Verdict
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.statistics.significance import mean_test


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
    """The list of properties, and on captured layers a test of the mean at their real size; writes `check-<name>.json`.

    An external product or linear layer is checked against the properties of its kind.

    With captures, each half of the verdicts gets half of the level; that half is shared evenly by the layers.

    Raises:
        InputError: on an unusable level, number of draws or layer.
    """
    seed = checked_seed(seed)
    entries = [] if captures is None else chosen_entries(captures, layers)
    share = level / 2 if entries else level
    if isinstance(estimator, (ExternalProduct, ExternalLinear)):
        verdicts = check_external(estimator, level=share, seed=seed)
    else:
        verdicts = check_estimator(estimator, level=share, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for done, entry in enumerate(entries, start=1):
        assert captures is not None
        verdicts.append(_layer_verdict(estimator, captures, entry, draws, share / len(entries), generator))
        if report is not None:
            report(entry, done, len(entries))
    inputs = {"level": str(level)} | ({} if captures is None else source_of(captures))
    result = CheckResult(stamp=stamp(seed=seed, inputs=inputs), estimator=spec(estimator), verdicts=verdicts)
    if out is not None:
        write_result(result_file(out, estimator), result)
    return result


def result_file(out: Path, estimator: Estimator) -> Path:
    """Where `check_study` writes the verdicts on this estimator."""
    return out / f"check-{file_stem(estimator)}.json"


def _layer_verdict(
    estimator: Estimator, captures: Captures, entry: str, draws: int, level: float, generator: torch.Generator
) -> Verdict:
    name = f"mean on {entry}"
    if not estimator.traits.unbiased:
        return Verdict(name=name, status="not applicable", detail="the estimator does not claim to be unbiased")
    layer = captures[entry]
    scores = layer_scores("row-norms", layer.x, layer.dy, layer.mask)
    tracker = MeanTracker(estimator, Problem(layer.x, layer.dy))
    found = mean_test(tracker, layer.x, layer.dy, draws=draws, level=level, scores=scores, generator=generator)
    detail = (
        f"{tracker.report()}; p = {found.p_value:.2g} at level {level:.1g} over {draws} draws; seen with 99 % power "
        f"would be a bias of {found.detectable:.2g} ‖G‖ in any direction, or of {found.detectable_along:.2g} ‖G‖ along G"
    )
    return Verdict(name=name, status="fail" if found.rejected else "pass", detail=detail)
