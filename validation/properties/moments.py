"""Properties about mean and variance: exactly by enumeration where that is possible, and always by sampling."""

from __future__ import annotations

from functools import partial

import torch

from wtacrs.estimators import RowEstimator, RowMoments, joint_norms, sampling_scores
from wtacrs.validation.enumeration.exact_moments import ExactMoments
from wtacrs.validation.properties.means import mean_on
from wtacrs.validation.properties.property import (
    Case,
    CheckContext,
    Evidence,
    NotApplicable,
    PropertyBroken,
    register_property,
    require,
)
from wtacrs.validation.statistics.moments import closed_form
from wtacrs.validation.statistics.significance import mean_test, variance_test

# statistical tests of closed forms in one run of the list of properties; each gets an equal share of its level
STATISTICAL_TESTS = 2

ZERO_SCORES = "mean: all-zero scores"

_EXACT = 1e-10
_DRAWS = 600
_VARIANCE_DRAWS = 1200


@register_property("unbiased, by enumeration")
def unbiased_by_enumeration(context: CheckContext) -> str:
    """The mean over all outcomes is the exact product of the rows of positive score."""
    if not context.estimator.traits.unbiased:
        raise NotApplicable("declared biased")
    worst = 0.0
    for case in _cases(context):
        error = float((case.moments.mean - case.reachable_product).norm()) / case.size
        require(error <= _EXACT, f"{case.label}: bias {error:.3g} of Σw, accepted {_EXACT:g}")
        worst = max(worst, error)
    return f"largest bias {worst:.1e} of Σw over {_extent(context)}"


@register_property(ZERO_SCORES)
def mean_with_zero_scores(context: CheckContext) -> Evidence:
    """The mean is the exact product where all scores are zero, and nothing tells the rows apart."""
    scores = torch.zeros(context.sizes.rows, dtype=torch.float64)
    return mean_on(context, "equal rows", scores=scores)


@register_property("closed forms, by enumeration")
def closed_forms_by_enumeration(context: CheckContext) -> str:
    """`expectation`, `variance` and the coefficients' moments equal those over all outcomes."""
    worst, compared = 0.0, set()
    for case in _cases(context):
        for what, error in _differences(case):
            require(
                error <= _EXACT, f"{case.label}: {what} differs by {error:.3g} (relative), accepted {_EXACT:g}"
            )
            worst = max(worst, error)
            compared.add(what)
    if not compared:
        raise NotApplicable("no closed form")
    return f"{', '.join(sorted(compared))}: largest relative difference {worst:.1e} over {_extent(context)}"


def _differences(case: Case) -> list[tuple[str, float]]:
    """Relative differences of every closed form there is; the scale of the variance is `E‖Ĝ‖²`."""
    estimator, (x, dy), found = case.estimator, case.problem, case.moments
    differences = []
    expectation = closed_form(lambda: estimator.expectation(x, dy, scores=case.scores))
    if expectation is not None:
        differences.append(("mean", float((expectation - found.mean).norm()) / case.size))
    variance = closed_form(lambda: float(estimator.variance(x, dy, scores=case.scores)))
    if variance is not None:
        scale = found.variance + float(found.mean.square().sum())
        differences.append(("variance", abs(variance - found.variance) / scale))
    if isinstance(estimator, RowEstimator):
        coefficients = closed_form(partial(estimator.moments, sampling_scores(x, case.scores)))
        if coefficients is not None:
            differences += _coefficient_differences(coefficients, found)
    return differences


def _coefficient_differences(stated: RowMoments, found: ExactMoments) -> list[tuple[str, float]]:
    listed_mean, listed = found.coefficient_mean, found.coefficient_covariance
    if listed_mean is None or listed is None:
        raise PropertyBroken("enumeration gave no coefficients for a row design")
    scale = float(listed.abs().max()) + 1.0
    return [
        ("coefficient mean", float((stated.mean - listed_mean).abs().max())),
        ("coefficient covariance", float((stated.covariance - listed).abs().max()) / scale),
    ]


@register_property("closed forms, by sampling")
def closed_forms_by_sampling(context: CheckContext) -> str:
    """`expectation` and `variance` agree with the moments of many draws."""
    if context.estimator.traits.deterministic:
        raise NotApplicable("deterministic: one outcome, see the enumeration")
    x, dy = context.problem("coherent", context.rows(24))
    scores = joint_norms(x, dy)
    seen = []
    target = closed_form(lambda: context.estimator.expectation(x, dy, scores=scores))
    if target is not None:
        mean = mean_test(
            context.estimator,
            x,
            dy,
            draws=_DRAWS,
            level=context.level,
            target=target,
            scores=scores,
            generator=context.stream(2),
        )
        seen.append(f"mean p = {mean.p_value:.2g}")
        require(not mean.rejected, f"expectation: p = {mean.p_value:.2g}, off by {mean.bias:.2g} of its norm")
    variance = closed_form(
        lambda: variance_test(
            context.estimator,
            x,
            dy,
            draws=_VARIANCE_DRAWS,
            level=context.level,
            scores=scores,
            generator=context.stream(3),
        )
    )
    if variance is not None:
        seen.append(f"variance p = {variance.p_value:.2g}")
        require(
            not variance.rejected,
            f"variance: p = {variance.p_value:.2g}, stated {variance.stated:.6g}, "
            f"measured {variance.measured:.6g} ± {variance.error:.2g}",
        )
    if not seen:
        raise NotApplicable("no closed form")
    return ", ".join(seen)


@register_property("probabilities sum to one")
def probabilities(context: CheckContext) -> str:
    """The outcomes that were listed hold all the probability."""
    worst = max(abs(case.moments.probability - 1.0) for case in _cases(context))
    require(worst <= 1e-12, f"total probability is off by {worst:.2e}")
    return f"off by at most {worst:.1e}"


def _cases(context: CheckContext) -> list[Case]:
    with torch.no_grad():
        cases = context.enumerated
    if not cases:
        raise NotApplicable("no small problem is accepted that has few enough outcomes to list")
    return cases


def _extent(context: CheckContext) -> str:
    return (
        f"{len(context.enumerated)} problems, up to {max(c.moments.outcomes for c in context.enumerated)} outcomes"
    )
