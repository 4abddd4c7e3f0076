"""The form of a property: a named check that holds, is broken, or does not apply, and the context it is checked in."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, RowEstimator, joint_norms, sampling_scores
from wtacrs.estimators.core.seeded import SeededEstimator
from wtacrs.estimators.core.sizing import budget_of, resized, sized_part
from wtacrs.validation.enumeration.exact_moments import ExactMoments, can_enumerate, enumerate_moments
from wtacrs.validation.problems import PROBLEMS, Problem, make_problem
from wtacrs.validation.properties.external_estimators import LEAST, ExternalEstimator, ExternalLinear, seeded
from wtacrs.validation.properties.external_estimators import Sizes as LeastSizes
from wtacrs.validation.properties.mean_problems import ROWS
from wtacrs.validation.properties.working_precision import working_precision
from wtacrs.validation.statistics.staged_means import DEFAULT_DEMAND, Demand, DirectionFinding, StagedMean

# (n, k): small ones for every design, then a few with one or two free slots for designs that fix many rows
_SMALL = ((5, 2), (6, 3))
_SMALL_KEYED = ((4, 2), (5, 3))  # a random order multiplies the outcomes by n!
_SMALLEST = ((3, 2), (4, 1))  # numbers for every row, every entry of an operator, or every rounded number
_NEARLY_FULL = ((7, 6), (19, 17), (67, 65))
_OUTCOMES = 3000

SEEDED = ("all zero", "fewer positive than rows kept", "one dominating", "ties and zeros", "unrelated to the rows")


class _Found(Exception):
    """A finding that ends a check.

    Args:
        message: one line.
        mean: the test of a mean that says so, if one does.
    """

    def __init__(self, message: str, mean: StagedMean | None = None) -> None:
        super().__init__(message)
        self.mean = mean


class PropertyBroken(_Found):
    """The estimator breaks the property; the message says by how much."""


class Undecided(_Found):
    """Neither holds nor is broken within the time there was; the message says what could have been missed."""


class NotApplicable(Exception):
    """The property says nothing about this estimator; the message says why."""


class Case(NamedTuple):
    """One problem whose outcomes have all been listed."""

    label: str
    estimator: Estimator
    problem: Problem
    scores: Tensor | None
    moments: ExactMoments

    @property
    def reachable_product(self) -> Tensor:
        """Exact product of the rows of positive score, the mean of every unbiased estimator."""
        x, dy = self.problem
        reachable = (
            sampling_scores(x, self.scores) > 0 if self.estimator.traits.leaves_out_zeros else x.new_ones(len(x))
        )
        return (dy * reachable.unsqueeze(1)).T @ x

    @property
    def size(self) -> float:
        """`Σ w`, the scale of the rounding errors of a product."""
        return float(joint_norms(*self.problem).sum())


@dataclasses.dataclass
class Clock:
    """The time of one run, from when it is first asked: what one test of a mean does not use is left to the others.

    Args:
        seconds: for the whole run.
        tests: how many tests of means are to come after the one whose turn it is.
    """

    seconds: float
    tests: int = 0
    started: float | None = None

    @property
    def passed(self) -> float:
        """Seconds since the first question."""
        if self.started is None:
            self.started = time.monotonic()
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds that are left, never quite none."""
        return max(self.seconds - self.passed, 1e-3)

    def turn(self) -> None:
        """Go on to the next test of a mean, whether it will draw anything or not."""
        self.tests = max(self.tests - 1, 0)

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.passed >= self.seconds

    def allowance(self) -> float:
        """Seconds that the test of a mean whose turn it is may take."""
        return self.left / (self.tests + 1)


class Sizes(NamedTuple):
    """Rows and widths of the problems that means are tested on; the one with a dominating row has twice as many."""

    rows: int = ROWS
    d: int = 16
    m: int = 4


DEFAULT_SIZES = Sizes()


@dataclasses.dataclass(frozen=True)
class CheckContext:
    """One estimator under examination, and the problems it is examined on.

    Args:
        estimator: as given by the user.
        level: false-alarm probability of one statistical test.
        seed: of every problem and every draw.
        demand: what the tests of means are asked for; their level is that of one test.
        clock: time that they share.
        sizes: of their problems.
        findings: what the tests of means have found so far, for the one that takes them together.
        broken: names of the tests of means that reject.
    """

    estimator: Estimator
    level: float
    seed: int
    demand: Demand = DEFAULT_DEMAND
    clock: Clock = dataclasses.field(default_factory=lambda: Clock(DEFAULT_DEMAND.limit))
    sizes: Sizes = DEFAULT_SIZES
    findings: list[DirectionFinding] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)

    @property
    def precision(self) -> torch.dtype:
        """The widest dtype that the estimator takes."""
        return self.estimator.precision if isinstance(self.estimator, ExternalEstimator) else torch.float64

    @property
    def least(self) -> LeastSizes:
        """Rows and widths of the problems that are not about the mean."""
        return self.estimator.sizes if isinstance(self.estimator, ExternalEstimator) else LEAST

    @property
    def layer(self) -> ExternalLinear:
        """The linear layer under examination.

        Raises:
            NotApplicable: if it is none.
        """
        if not isinstance(self.estimator, ExternalLinear):
            raise NotApplicable("a product, no layer")
        return self.estimator

    @property
    def accepted_rounding(self) -> float:
        """What a layer's result may be off by, as a share of its norm, and count as exact."""
        return 64 * torch.finfo(self.working_precision).eps

    @cached_property
    def working_precision(self) -> torch.dtype:
        """What the estimator computes in on input of its widest dtype."""
        n, d, m = self.sizes
        x, dy = make_problem("ties", n, d, m, generator=self.stream(6), dtype=self.precision)
        return working_precision(lambda: estimate(self.estimator, Problem(x, dy), generator=self.stream()), n)

    @cached_property
    def drawn_gradients(self) -> set[str]:
        """Which of dX and db of a layer differ from draw to draw: they are estimated too, and their means are tested."""
        layer = self.estimator
        if not isinstance(layer, ExternalLinear):
            return set()
        n, d, m = self.sizes
        x, dy = make_problem("gaussian", n, d, m, generator=self.stream(5), dtype=self.precision)
        with seeded(self.seed):
            steps = [layer.run(x, dy) for _ in range(4)]
        drawn = set()
        for name, found in (("dX", [s.dx for s in steps]), ("db", [s.db for s in steps])):
            first = found[0]
            if first is not None and any(other is not None and not torch.equal(first, other) for other in found):
                drawn.add(name)
        return drawn

    def stream(self, offset: int = 0) -> torch.Generator:
        """A fresh generator; equal offsets give equal streams."""
        return torch.Generator().manual_seed(self.seed + offset)

    def problem(
        self,
        name: str,
        n: int,
        d: int | None = None,
        m: int | None = None,
        dtype: torch.dtype | None = None,
        offset: int = 0,
    ) -> Problem:
        """A problem of a named family, always the same for the same arguments; in the widest dtype by default."""
        dtype = dtype or self.precision
        d, m = d or self.least.d, m or self.least.m
        return make_problem(name, n, d, m, generator=self.stream(1_000_003 + offset), dtype=dtype)

    def rows(self, at_least: int) -> int:
        """A number of rows of which the estimator under its own budget can keep some and leave some."""
        design = _with_budget(self.estimator)
        budget = getattr(design, "budget", None)
        if isinstance(budget, int):
            return max(at_least, 2 * budget)
        winners = getattr(design, "winners", None)
        if isinstance(budget, float) and isinstance(winners, int):
            return max(at_least, round((winners + 2) / budget) + 1)
        return at_least

    def at_budget(self, k: int) -> Estimator:
        """The estimator, or the row design inside it, keeping k rows.

        Raises:
            NotApplicable: if it has no budget.
        """
        if budget_of(self.estimator) is None:
            raise NotApplicable("the estimator has no budget")
        return resized(self.estimator, k)

    def scores(self, kind: str, n: int) -> Tensor:
        """Scores of one awkward kind (`SEEDED`)."""
        scores = 0.1 + torch.rand(n, dtype=torch.float64, generator=self.stream(2_000_003))
        rank = torch.arange(n)
        if kind == "all zero":
            return torch.zeros_like(scores)
        if kind == "fewer positive than rows kept":
            return torch.where(rank == n - 1, scores, 0.0)
        if kind == "one dominating":
            return torch.where(rank == n // 2, 1e4, scores)
        if kind == "ties and zeros":
            return (rank % 3).double()
        return scores

    @cached_property
    def enumerated(self) -> list[Case]:
        """Every small problem whose outcomes can be listed."""
        return list(self._enumerate())

    def _enumerate(self) -> Iterator[Case]:
        reason = can_enumerate(self.estimator)
        if reason is not None:
            raise NotApplicable(reason)
        sizes = list(self._sizes())
        for position, (estimator, n) in enumerate(sizes):
            # the larger size is costly and repeats little: the families differ in rows, not in plans
            names: Iterable[str] = PROBLEMS if position == 0 else ("gaussian",)
            for name in names:
                yield from self._case(estimator, name, n, "row-norms", None)
            for kind in SEEDED if position == 0 else ("all zero", "ties and zeros"):
                yield from self._case(estimator, "gaussian", n, kind, self.scores(kind, n))

    def _case(self, estimator: Estimator, name: str, n: int, kind: str, scores: Tensor | None) -> Iterator[Case]:
        problem = self.problem(name, n)
        moments = enumerate_moments(estimator, *problem, scores=scores, limit=_OUTCOMES)
        yield Case(f"{estimator!r} on {name}, n={n}, scores {kind}", estimator, problem, scores, moments)

    def _sizes(self) -> Iterator[tuple[Estimator, int]]:
        """The estimator at small sizes which it accepts and whose outcomes are few enough."""
        design = _with_budget(self.estimator)
        if design is None:
            yield from ((self.estimator, n) for n, _ in _SMALLEST if self._fits(self.estimator, n))
            return
        found = 0
        keyed = isinstance(design, RowEstimator) and design.keys(2) > 0
        many = isinstance(design, SeededEstimator) or design is not self.estimator
        small = _SMALLEST if many else _SMALL_KEYED if keyed else _SMALL
        for n, k in small + _NEARLY_FULL:
            try:
                estimator = self.at_budget(k)
            except InputError:  # its other fields exclude so few rows
                continue
            if found < 2 and self._fits(estimator, n):
                found += 1
                yield estimator, n

    def _fits(self, estimator: Estimator, n: int) -> bool:
        try:
            enumerate_moments(estimator, *self.problem("ties", n), limit=_OUTCOMES)
        except InputError:
            return False
        return True


def _with_budget(estimator: Estimator) -> Estimator | None:
    """The estimator itself or the one inside it that has a budget."""
    return None if budget_of(estimator) is None else sized_part(estimator)


Check = Callable[[CheckContext], "str | Evidence"]


class Evidence(NamedTuple):
    """What was seen where a property holds: in words, and the test of a mean behind them."""

    detail: str
    mean: StagedMean


@dataclasses.dataclass(frozen=True)
class Property:
    """A property of the protocol: `check` returns what was seen, or raises `PropertyBroken`, `Undecided` or
    `NotApplicable`.
    """

    name: str
    description: str
    check: Check


PROPERTIES: dict[str, Property] = {}


def register_in(table: dict[str, Property], name: str) -> Callable[[Check], Check]:
    """Enter a check into a list of properties; the first line of its docstring is the property's description."""

    def enter(check: Check) -> Check:
        table[name] = Property(name, (check.__doc__ or "").strip().splitlines()[0], check)
        return check

    return enter


def register_property(name: str) -> Callable[[Check], Check]:
    """Enter a check into the list of properties of estimators."""
    return register_in(PROPERTIES, name)


def require(condition: bool, message: str) -> None:
    """Raise `PropertyBroken(message)` unless the condition holds."""
    if not condition:
        raise PropertyBroken(message)


def estimate(
    estimator: Estimator, problem: Problem, scores: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """One compression and contraction."""
    return estimator.contract(estimator.compress(problem.x, scores=scores, generator=generator), problem.dy)


def same_saved(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    """Whether two compressed activations are equal bit for bit."""
    if len(a) != len(b):
        return False
    return all(
        torch.equal(u, v) if isinstance(u, Tensor) and isinstance(v, Tensor) else u == v
        for u, v in zip(a, b, strict=True)
    )
