"""All properties, checked on one estimator, registered or not: `check_estimator(your_estimator)`.

The properties are those of `wtacrs.estimators.core.base`; which of them apply follows from the estimator's `traits`.
Those about the mean are the same for estimators, ours or others', and for external products and linear layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

# importing the modules enters their properties into the list
import wtacrs.validation.properties.mechanics
import wtacrs.validation.properties.moments  # noqa: F401
from wtacrs.estimators import Estimator, InputError
from wtacrs.validation.properties.external import EXTERNAL_PROPERTIES
from wtacrs.validation.properties.external_estimators import (
    LEAST,
    ExternalEstimator,
    ExternalLinear,
    ExternalProduct,
)
from wtacrs.validation.properties.mean_report import bias_size
from wtacrs.validation.properties.means import (
    LAYER_MEAN_PROPERTIES,
    MEAN_PROPERTIES,
    POOLED,
    mean_of_problem,
)
from wtacrs.validation.properties.moments import STATISTICAL_TESTS, ZERO_SCORES
from wtacrs.validation.properties.property import (
    DEFAULT_SIZES,
    PROPERTIES,
    CheckContext,
    Clock,
    Evidence,
    NotApplicable,
    Property,
    PropertyBroken,
    Sizes,
    Undecided,
)
from wtacrs.validation.properties.time_limit import TimeLimitReached, time_limit
from wtacrs.validation.records.check import DirectionRecord, Verdict
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.statistics.staged_means import Demand, StagedMean

PROPERTIES.update(MEAN_PROPERTIES)

# a test of a mean ends by itself; only a single draw that takes longer is interrupted
_GRACE = 2.0

Told = Callable[[str, int, int], None]


class CheckFailed(AssertionError):
    """An estimator breaks a property; the message lists what was found.

    Args:
        message: one line per property that is broken or undecided.
        verdicts: all of them.
    """

    def __init__(self, message: str, verdicts: Sequence[Verdict]) -> None:
        super().__init__(message)
        self.verdicts = list(verdicts)


def properties(estimator: Estimator | None = None) -> tuple[tuple[str, str], ...]:
    """Name and one-line description of every property, in the order they are checked.

    Args:
        estimator: an external product or layer for the properties of its kind; else those of estimators.
    """
    return tuple((entry.name, entry.description) for entry in _table(estimator).values())


def check_estimator(
    estimator: Estimator,
    *,
    expected_failures: Mapping[str, str] | None = None,
    raises: bool = True,
    level: float = 1e-6,
    bias: float = 0.1,
    power: float = 0.99,
    limit: float = 60.0,
    sizes: Sizes = DEFAULT_SIZES,
    seed: int = 0,
    only: Sequence[str] | None = None,
    report: Told | None = None,
) -> list[Verdict]:
    """Check one estimator, external product or external layer against every property of its kind.

    Each property holds, is broken, stays undecided (time ran out before a bias of the size asked for was ruled out), or
    does not apply. Takes some seconds, and `limit` seconds at most.

    Args:
        estimator: any `Estimator`, registered or not, or what `external_from` returns.
        expected_failures: property name to the reason why this estimator breaks it. Such a failure becomes an
            "expected failure"; a declared failure that does not happen is "broken", so that reasons stay true.
        raises: raise `CheckFailed` where a property is broken or undecided; otherwise only return the verdicts.
        level: probability that a sound estimator breaks any of the statistical properties.
        bias: to be ruled out along every direction that a mean is tested along, as a share of the exact product there.
        power: with which a bias of that size would be seen.
        limit: seconds for the whole; what is not finished by then is undecided.
        sizes: of the problems that means are tested on.
        seed: of all problems and draws.
        only: names of the properties to check; all if None.
        report: is told the name of a property before it is checked, its place and how many there are.

    Returns:
        One verdict per property. An unexpected exception inside a property is "broken" with its text.

    Raises:
        CheckFailed: an AssertionError; if a property is broken or undecided, unless `raises` is False.
        InputError: if `estimator` is no Estimator, a property's name is unknown, or a number or the seed is unusable.
    """
    demand = Demand(level=level, bias=bias, power=power, limit=limit)
    run = Examination(estimator, demand, expected_failures=expected_failures, only=only, sizes=sizes, seed=seed)
    verdicts = []
    for place, name in enumerate(run.names):
        if report is not None:
            report(name, place, len(run.names))
        verdicts.append(run.verdict(name))
    if raises:
        raise_for(estimator, verdicts)
    return verdicts


class Examination:
    """One estimator, and the properties that it is asked for one by one; what they share is computed once.

    Args:
        estimator: as for `check_estimator`.
        demand: level, bias, power and time of all properties together.
        expected_failures: as for `check_estimator`.
        only: as for `check_estimator`.
        sizes: as for `check_estimator`.
        seed: as for `check_estimator`.

    Raises:
        InputError: as `check_estimator`.
    """

    def __init__(
        self,
        estimator: Estimator,
        demand: Demand,
        *,
        expected_failures: Mapping[str, str] | None = None,
        only: Sequence[str] | None = None,
        sizes: Sizes = DEFAULT_SIZES,
        seed: int = 0,
    ) -> None:
        if not isinstance(estimator, Estimator):
            raise InputError(f"estimator must be a wtacrs.estimators.Estimator, got {type(estimator).__name__}")
        self._table, self._expected = _table(estimator), dict(expected_failures or {})
        _known("expected_failures", self._expected, self._table)
        _known("only", only or (), self._table)
        self.names = [name for name in self._table if only is None or name in only]
        self._context = _context(estimator, self._table, self.names, demand, sizes, checked_seed(seed))

    def verdict(self, name: str) -> Verdict:
        """Whether the property of this name holds."""
        if name in _means(self._table) and name != POOLED:
            self._context.clock.turn()
        return _verdict(self._table[name], self._context, self._expected.get(name))


@torch.no_grad()
def check_rows(
    estimator: Estimator,
    name: str,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    demand: Demand,
    *,
    scores: Shaped[Tensor, " n"] | None = None,
    generator: torch.Generator,
) -> Verdict:
    """Test the mean on given rows, such as a captured layer's, along their exact product.

    Args:
        estimator: registered or not, or an external product or layer.
        name: of the verdict.
        x: input rows.
        dy: output gradients.
        demand: level, bias to rule out, power and time.
        scores: as in `Estimator.compress`.
        generator: source of the draws.
    """
    context = CheckContext(estimator, demand.level, 0, demand=demand, clock=Clock(demand.limit))
    entry = Property(name, name, lambda context: mean_of_problem(context, x, dy, scores, generator))
    return _verdict(entry, context, None)


def _known(argument: str, names: Iterable[str], table: Mapping[str, Property]) -> None:
    for name in names:
        if name not in table:
            raise InputError(f"{argument}: no property is called {name!r}; the properties are: {', '.join(table)}")


def _table(estimator: Estimator | None) -> dict[str, Property]:
    return EXTERNAL_PROPERTIES if isinstance(estimator, (ExternalProduct, ExternalLinear)) else PROPERTIES


def _means(table: Mapping[str, Property]) -> list[str]:
    return [name for name in table if name in {*MEAN_PROPERTIES, *LAYER_MEAN_PROPERTIES, ZERO_SCORES}]


def _context(
    estimator: Estimator,
    table: Mapping[str, Property],
    chosen: Sequence[str],
    demand: Demand,
    sizes: Sizes,
    seed: int,
) -> CheckContext:
    means = _means(table)
    tests = len(means) + (STATISTICAL_TESTS if table is PROPERTIES else 0)
    timed = sum(name in means and name != POOLED for name in chosen)
    if isinstance(estimator, ExternalEstimator):
        sizes = _sizes_of(estimator, sizes)
    return CheckContext(
        estimator, demand.level / tests, seed, demand=demand, clock=Clock(demand.limit, timed), sizes=sizes
    )


def _sizes_of(estimator: ExternalEstimator, usual: Sizes) -> Sizes:
    """The usual sizes, unless the code needs or was given others."""
    n, d, m = estimator.sizes
    return Sizes(usual.rows if n == LEAST.n else n, *((usual.d, usual.m) if (d, m) == LEAST[1:] else (d, m)))


def raise_for(estimator: Estimator, verdicts: Sequence[Verdict]) -> None:
    """Raise for the properties that do not hold.

    Raises:
        CheckFailed: if there are any.
    """
    failed = [v for v in verdicts if v.status in ("broken", "undecided")]
    if failed:
        lines = [f"  {v.status}: {v.name}: {v.detail}" for v in failed]
        raise CheckFailed(
            "\n".join([f"{estimator!r}: {len(failed)} of {len(verdicts)} properties", *lines]), verdicts
        )


def _verdict(entry: Property, context: CheckContext, excuse: str | None) -> Verdict:
    if context.clock.is_over and entry.name != POOLED:  # which draws nothing
        detail = f"not reached: the {context.clock.seconds:g} seconds of the whole check are over"
        return Verdict(name=entry.name, status="undecided", detail=detail)
    try:
        with time_limit(context.clock.left + _GRACE):
            found = entry.check(context)
    except NotApplicable as reason:
        return Verdict(name=entry.name, status="not applicable", detail=str(reason))
    except Undecided as reason:
        return _with_evidence(Verdict(name=entry.name, status="undecided", detail=str(reason)), reason.mean)
    except TimeLimitReached:
        detail = f"stopped: the {context.clock.seconds:g} seconds of the whole check are over"
        return Verdict(name=entry.name, status="undecided", detail=detail)
    except PropertyBroken as failure:
        if failure.mean is not None:
            context.broken.append(entry.name)
        return _with_evidence(_failure(entry.name, str(failure), excuse), failure.mean)
    except (
        Exception
    ) as error:  # an estimator from outside may raise anything; the other properties are still of interest
        return _failure(entry.name, f"{type(error).__name__}: {error}", excuse)
    detail, mean = (found.detail, found.mean) if isinstance(found, Evidence) else (found, None)
    if excuse is not None:
        detail = f"declared as an expected failure ({excuse}), but the property holds: {detail}"
        return _with_evidence(Verdict(name=entry.name, status="broken", detail=detail), mean)
    return _with_evidence(Verdict(name=entry.name, status="holds", detail=detail), mean)


def _failure(name: str, detail: str, excuse: str | None) -> Verdict:
    if excuse is None:
        return Verdict(name=name, status="broken", detail=detail)
    return Verdict(name=name, status="expected failure", detail=f"{excuse} ({detail})")


def _with_evidence(verdict: Verdict, mean: StagedMean | None) -> Verdict:
    """The verdict with the numbers of the test behind it."""
    if mean is None:
        return verdict
    directions = tuple(DirectionRecord(**d._asdict()) for d in mean.directions)
    return verdict.model_copy(
        update={
            "draws": mean.draws,
            "ruled_out": mean.ruled_out,
            "power": mean.power,
            "bias": bias_size(mean) if mean.outcome == "broken" else None,
            "seconds": mean.seconds,
            "directions": directions,
        }
    )
