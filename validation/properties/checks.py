"""All properties, checked on one estimator, registered or not: `check_estimator(your_estimator)`.

The properties are those of `wtacrs.estimators.core.base`; which of them apply follows from the estimator's `traits`.
"""

from __future__ import annotations

from collections.abc import Mapping

# importing the modules enters their properties into the list
import wtacrs.validation.properties.mechanics
import wtacrs.validation.properties.moments  # noqa: F401
from wtacrs.estimators import Estimator, InputError
from wtacrs.validation.properties.external import EXTERNAL_PROPERTIES, ExternalCheckContext, mean_tests
from wtacrs.validation.properties.external_estimators import ExternalLinear, ExternalProduct
from wtacrs.validation.properties.moments import STATISTICAL_TESTS
from wtacrs.validation.properties.property import PROPERTIES, CheckContext, NotApplicable, Property, PropertyBroken
from wtacrs.validation.records.check import Verdict
from wtacrs.validation.seeds import checked_seed


def properties() -> tuple[tuple[str, str], ...]:
    """Name and one-line description of every property, in the order they are checked."""
    return tuple((entry.name, entry.description) for entry in PROPERTIES.values())


def check_estimator(
    estimator: Estimator,
    *,
    expected_failures: Mapping[str, str] | None = None,
    level: float = 1e-6,
    seed: int = 0,
) -> list[Verdict]:
    """Check one estimator against every property; takes a few seconds.

    Args:
        estimator: any `Estimator`, registered or not.
        expected_failures: property name to the reason why this estimator breaks it. Such a failure becomes an
            "expected failure"; a declared failure that does not happen is a "fail", so that reasons stay true.
        level: probability that a sound estimator fails any of the statistical properties.
        seed: of all problems and draws.

    Returns:
        One verdict per property. An unexpected exception inside a property is a "fail" with its text.

    Raises:
        InputError: if `estimator` is no Estimator, a property's name is unknown, the level is no probability, or the
            seed is unusable.
    """
    if not isinstance(estimator, Estimator):
        raise InputError(f"estimator must be a wtacrs.estimators.Estimator, got {type(estimator).__name__}")
    _check_level(level)
    seed = checked_seed(seed)
    expected = dict(expected_failures or {})
    unknown = [name for name in expected if name not in PROPERTIES]
    if unknown:
        raise InputError(
            f"expected_failures: no property is called {unknown[0]!r}; the properties are: {', '.join(PROPERTIES)}"
        )
    context = CheckContext(estimator, level / STATISTICAL_TESTS, seed)
    return [_verdict(entry, context, expected.get(entry.name)) for entry in PROPERTIES.values()]


def check_external(
    estimator: ExternalProduct | ExternalLinear, *, level: float = 1e-6, seed: int = 0
) -> list[Verdict]:
    """Check an external product or linear layer against the properties of its kind; takes a few seconds.

    Args:
        estimator: as `wtacrs.validation.properties.external_estimators.prepared` returns it.
        level: probability that a sound one fails any of the tests of its mean.
        seed: of all problems and draws.

    Returns:
        One verdict per property. An exception inside a property is a "fail" with its text.

    Raises:
        InputError: if the level is no probability, or the seed is unusable.
    """
    _check_level(level)
    seed = checked_seed(seed)
    context = ExternalCheckContext(estimator, level / mean_tests(estimator), seed)
    return [_verdict(entry, context, None) for entry in EXTERNAL_PROPERTIES.values()]


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise InputError(f"level={level!r} must be a probability in (0, 1)")


def _verdict(entry: Property, context: CheckContext, excuse: str | None) -> Verdict:
    try:
        detail = entry.check(context)
    except NotApplicable as reason:
        return Verdict(name=entry.name, status="not applicable", detail=str(reason))
    except PropertyBroken as failure:
        return _failure(entry.name, str(failure), excuse)
    except (
        Exception
    ) as error:  # an estimator from outside may raise anything; the other properties are still of interest
        return _failure(entry.name, f"{type(error).__name__}: {error}", excuse)
    if excuse is not None:
        detail = f"declared as an expected failure ({excuse}), but the property holds: {detail}"
        return Verdict(name=entry.name, status="fail", detail=detail)
    return Verdict(name=entry.name, status="pass", detail=detail)


def _failure(name: str, detail: str, excuse: str | None) -> Verdict:
    if excuse is None:
        return Verdict(name=name, status="fail", detail=detail)
    return Verdict(name=name, status="expected failure", detail=f"{excuse} ({detail})")
