"""The properties as tests of somebody's own suite: one test per estimator and law.

>>> from wtacrs.validation import parametrize_with_laws
>>> @parametrize_with_laws(["crs(budget=0.3)"], bias=0.5)
... def test_laws(estimator, law):
...     law(estimator)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from wtacrs.estimators import Estimator, make
from wtacrs.validation.properties.checks import Examination, raise_for
from wtacrs.validation.properties.property import DEFAULT_SIZES, Sizes
from wtacrs.validation.statistics.staged_means import Demand


@dataclasses.dataclass(frozen=True)
class Law:
    """One property as a function of the estimator that it was made for.

    Args:
        name: of the property.
        examination: what all laws of one estimator share.
    """

    name: str
    examination: Examination

    def __call__(self, estimator: Estimator) -> None:
        """Check the law; a law that does not apply skips the test, an expected failure is one of pytest's.

        Raises:
            CheckFailed: an AssertionError; if the law is broken or undecided.
        """
        import pytest

        found = self.examination.verdict(self.name)
        raise_for(estimator, [found])
        if found.status == "not applicable":
            pytest.skip(found.detail)
        if found.status == "expected failure":
            pytest.xfail(found.detail)

    def __repr__(self) -> str:
        return self.name


def parametrize_with_laws(
    estimators: Sequence[Estimator | str],
    *,
    expected_failures: Mapping[str, str] | None = None,
    level: float = 1e-6,
    bias: float = 0.1,
    power: float = 0.99,
    limit: float = 60.0,
    sizes: Sizes = DEFAULT_SIZES,
    seed: int = 0,
) -> Any:
    """Decorate `test(estimator, law)` of pytest, whose body is `law(estimator)`: one test for each law of each estimator.

    Args:
        estimators: estimators, their specs, or what `external_from` returns; at least one.
        expected_failures: as for `check_estimator`, for all of them.
        level: probability that any of the tests fails while all estimators are sound; it is divided evenly.
        bias: as for `check_estimator`.
        power: as for `check_estimator`.
        limit: seconds for each estimator.
        sizes: as for `check_estimator`.
        seed: as for `check_estimator`.

    Raises:
        InputError: as `check_estimator`, or on no estimators.
    """
    import pytest

    made = [make(each) for each in estimators]
    demand = Demand(level=level / max(len(made), 1), bias=bias, power=power, limit=limit)
    cases = []
    for estimator in made:
        run = Examination(estimator, demand, expected_failures=expected_failures, sizes=sizes, seed=seed)
        cases += [pytest.param(estimator, Law(name, run), id=f"{estimator!r}-{name}") for name in run.names]
    return pytest.mark.parametrize(("estimator", "law"), cases)
