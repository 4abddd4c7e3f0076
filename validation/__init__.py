"""Is it unbiased, how large is the variance, which is better: library code, no pytest inside.

>>> import torch
>>> from wtacrs.estimators import make
>>> from wtacrs.validation import check_estimator, enumerate_moments
>>> x, dy = torch.eye(4, 3), torch.ones(4, 2)
>>> bool(torch.allclose(enumerate_moments(make("crs(budget=2)"), x, dy).mean, (dy.T @ x).double()))
True
>>> {verdict.status for verdict in check_estimator(make("exact"))} <= {"holds", "not applicable"}
True

The names below are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wtacrs.validation.enumeration.exact_moments import enumerate_moments as enumerate_moments
    from wtacrs.validation.layers.captures import load_captures as load_captures
    from wtacrs.validation.layers.compare import compare as compare
    from wtacrs.validation.properties.checks import CheckFailed as CheckFailed
    from wtacrs.validation.properties.checks import check_estimator as check_estimator
    from wtacrs.validation.properties.parametrize import parametrize_with_laws as parametrize_with_laws
    from wtacrs.validation.statistics.moments import moments as moments
    from wtacrs.validation.statistics.monte_carlo import monte_carlo as monte_carlo
    from wtacrs.validation.statistics.significance import mean_test as mean_test
    from wtacrs.validation.statistics.variance_ratio import compare_variances as compare_variances

_HOMES = {
    "CheckFailed": "properties.checks",
    "check_estimator": "properties.checks",
    "compare": "layers.compare",
    "compare_variances": "statistics.variance_ratio",
    "enumerate_moments": "enumeration.exact_moments",
    "load_captures": "layers.captures",
    "mean_test": "statistics.significance",
    "moments": "statistics.moments",
    "parametrize_with_laws": "properties.parametrize",
    "monte_carlo": "statistics.monte_carlo",
}

__all__ = [*sorted(_HOMES)]

if not TYPE_CHECKING:  # hidden from type checkers, for which it would make every misspelt name valid

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
