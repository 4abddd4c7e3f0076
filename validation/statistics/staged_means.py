"""A mean tested in stages along directions fixed beforehand, until a stated bias is ruled out: three outcomes.

A test that does not reject says nothing by itself: it may have been too small. Here draws are added, in stages that
double their number, until one of these is true:

- *broken*: along one of the directions, or anywhere, the mean is rejected;
- *holds*: nothing is rejected, and along each direction a bias of the size asked for would have been rejected with the
  power asked for;
- *undecided*: time or draws ran out before either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.validation.statistics.one_sample import alike_and_off, doubted, least_shift, one_sample
from wtacrs.validation.statistics.significance import min_detectable_bias

Outcome = Literal["holds", "broken", "undecided"]

FIRST_STAGE = 200
STAGES = 11
# fewer draws than this are not tested: their t statistic says too little
LEAST_DRAWS = 30
# an event of smaller probability per draw may never happen in the sample: numbers that are all alike are no evidence
# against it
RAREST = 1 / 100
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True)
class Demand:
    """What a test of a mean is asked for.

    Args:
        level: probability in (0, 1) that a true mean is rejected, over all stages and directions.
        bias: the bias to rule out, as a share of what the exact product has along a direction.
        power: probability in (0, 1) of rejecting a bias of that size.
        limit: seconds after which no more is drawn.
        draws: number of draws after which no more is drawn.

    Raises:
        InputError: on a value outside its range.
    """

    level: float = 1e-6
    bias: float = 0.1
    power: float = 0.99
    limit: float = 60.0
    draws: int = FIRST_STAGE << (STAGES - 1)

    def __post_init__(self) -> None:
        for name in ("level", "power"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise InputError(f"{name}={getattr(self, name)!r} must be a probability in (0, 1)")
        for name in ("bias", "limit"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise InputError(f"{name}={getattr(self, name)!r} must be a positive number")
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < LEAST_DRAWS:
            raise InputError(f"draws={self.draws!r} must be an integer ≥ {LEAST_DRAWS}")


DEFAULT_DEMAND = Demand()


@dataclass(frozen=True)
class Direction:
    """A direction fixed before anything is drawn: the exact product of some rows.

    Args:
        name: what it is the product of.
        vector: this product, flat.
        rounding: how far off, as a share, a mean may be through rounding alone.
        kind: directions of one kind are pooled over problems.
    """

    name: str
    vector: Float64[Tensor, " p"]
    rounding: float = 0.0
    kind: str = ""


class DirectionFinding(NamedTuple):
    """What was found along one direction.

    Attributes:
        name: of the direction.
        kind: of the direction.
        share: the mean as a multiple of the exact product's part; 1 if there is no bias.
        error: its standard error.
        rounding: distance from 1 that still counts as none.
        p_value: two-sided, of this direction alone at the last stage.
        detectable: a bias of at least this share is rejected with the power asked for.
    """

    name: str
    kind: str
    share: float
    error: float
    rounding: float
    p_value: float
    detectable: float


class StagedMean(NamedTuple):
    """Outcome of `staged_mean_test`.

    Attributes:
        outcome: of the three.
        draws: how many were made.
        level: of the whole test.
        look_level: of one look at one direction; a p-value at or below it rejects.
        power: as asked for.
        directions: one finding each.
        anywhere: p-value against a bias in any direction, at the last stage.
        anywhere_bias: estimate of the norm of the bias, as a share of ‖target‖; 0 where noise alone explains it.
        anywhere_detectable: a bias of this share of ‖target‖ in any direction is rejected with that power.
        seconds: time it took.
    """

    outcome: Outcome
    draws: int
    level: float
    look_level: float
    power: float
    directions: tuple[DirectionFinding, ...]
    anywhere: float
    anywhere_bias: float
    anywhere_detectable: float
    seconds: float

    @property
    def ruled_out(self) -> float:
        """The largest bias along any of the directions that the test would have missed too often."""
        return max((found.detectable for found in self.directions), default=math.inf)


@torch.no_grad()
def staged_mean_test(
    draw: Callable[[], Float[Tensor, " p"]],
    target: Float64[Tensor, " p"],
    directions: Sequence[Direction],
    demand: Demand,
    *,
    rounding: float = 0.0,
) -> StagedMean:
    """Test that draws have the mean `target`, in up to 11 stages of 200, 400, 800, … draws.

    *Level.* Every stage is one look at all draws so far. Each of the R directions, and the test against a bias
    anywhere, gets `level / (11 (R + 1))` of it, so that the sum over looks and tests is at most `level` whatever
    their dependence (Bonferroni). Along a direction v the numbers ⟨Ĝ_t, v⟩/‖v‖² are i.i.d., and a two-sided t test
    corrected for skewness (`one_sample`) compares their mean with ⟨target, v⟩/‖v‖². Anywhere: the mean error of the
    draws before this stage gives a direction, and the draws of this stage, which are as many, are projected on it;
    given the former these are i.i.d., and of mean zero if there is no bias (see `mean_test`).

    *Numbers that are all alike* and off are rejected with p = (1 − 1/100)^T only: an event that happens in less than
    one draw of 100 may not have happened yet.

    *Power.* Along a direction with standard error s a bias of δ s is rejected with the power asked for, where δ is
    the noncentrality at which a t test of `look_level` reaches it, and more where the draws are skewed (`least_shift`).
    Drawing ends when δ s + rounding is at most the bias asked for, along every direction.

    The time limit depends on no draw. Where it ends a stage early, what was drawn is looked at.

    Args:
        draw: gives one estimate, flat.
        target: the claimed mean, flat.
        directions: at least one, none of them zero.
        demand: level, bias, power, time.
        rounding: norm of an error of the mean that counts as none, for the test against a bias anywhere.

    Raises:
        InputError: on no directions, a direction that is zero, or draws that are not finite.
    """
    if not directions or any(not bool(direction.vector.any()) for direction in directions):
        raise InputError("directions must be at least one, and none of them zero")
    looks = _Looks(target, directions, demand, rounding)
    start = time.monotonic()
    goal = FIRST_STAGE
    while True:
        goal = min(goal, demand.draws)
        in_time = _fill(looks, draw, goal, start + demand.limit)
        outcome = looks.look(last=not in_time or goal == demand.draws or looks.number + 1 == STAGES)
        if outcome is not None:
            return looks.result(outcome, time.monotonic() - start)
        goal *= 2


def _fill(looks: _Looks, draw: Callable[[], Tensor], goal: int, end: float) -> bool:
    """Draw up to a number of draws; False where time ran out before."""
    chunk = max(1, _CHUNK_BYTES // (8 * max(looks.target.numel(), 1)))
    waiting: list[Tensor] = []
    while looks.draws + len(waiting) < goal:
        if time.monotonic() > end:
            looks.take(waiting)
            return False
        waiting.append(draw().detach().to(torch.float64))
        if len(waiting) == chunk or (looks.wants_pilot and len(waiting) + looks.draws == FIRST_STAGE // 2):
            looks.take(waiting)
            waiting = []
    looks.take(waiting)
    return True


class _Looks:
    """Projections of all draws so far, and what each look at them says."""

    def __init__(self, target: Tensor, directions: Sequence[Direction], demand: Demand, rounding: float) -> None:
        self.target = target
        self.demand = demand
        self.number = 0
        self.draws = 0
        self._directions = directions
        self._rounding = rounding
        self._matrix = torch.stack([d.vector / d.vector.square().sum() for d in directions])
        self._null = (self._matrix @ target).tolist()
        self._shares: list[Tensor] = []
        self._sum = torch.zeros_like(target)
        self._pilot: Tensor | None = None
        self._pilot_draws = 0
        self._fresh: list[Tensor] = []
        self._squares, self._crossed = [0.0], [0.0]
        self._pairs = self._crosses = 0
        self._findings: tuple[DirectionFinding, ...] = ()
        self._anywhere, self._anywhere_detectable = 1.0, math.inf

    @property
    def level(self) -> float:
        """Of one test at one look."""
        return self.demand.level / STAGES / (len(self._directions) + 1)

    @property
    def wants_pilot(self) -> bool:
        """Whether the draws so far have not given a direction yet."""
        return self._pilot is None

    def take(self, estimates: list[Tensor]) -> None:
        """Take in some draws."""
        if not estimates:
            return
        errors = torch.stack(estimates)
        if not bool(errors.isfinite().all()):
            raise InputError("the draws hold NaN or infinite values: nothing can be tested")
        self._shares.append(errors @ self._matrix.T)
        errors -= self.target
        if self._pilot is not None:
            self._fresh.append(errors @ self._pilot)
        self._sum += errors.sum(0)
        self.draws += len(estimates)
        self._spread(errors)
        if self._pilot is None and self.draws >= FIRST_STAGE // 2:
            self._set_pilot()

    def _spread(self, errors: Tensor) -> None:
        """tr Σ and tr Σ² from differences of draws, as `PairDifferences`."""
        pairs = len(errors) // 2
        differences = (errors[0 : 2 * pairs : 2] - errors[1 : 2 * pairs : 2]) * math.sqrt(0.5)
        self._squares.append(float(differences.square().sum()))
        self._crossed.append(float((differences[1:] * differences[:-1]).sum(1).square().sum()))
        self._pairs += pairs
        self._crosses += max(pairs - 1, 0)

    def _set_pilot(self) -> None:
        norm = torch.linalg.vector_norm(self._sum)
        self._pilot = self._sum / norm if norm > 0 else torch.zeros_like(self._sum)
        self._pilot_draws = self.draws
        self._fresh = []

    def look(self, last: bool) -> Outcome | None:
        """Test all directions; None asks for more draws."""
        if self.draws < LEAST_DRAWS:
            return "undecided"
        shares = torch.cat(self._shares).numpy()
        self._findings = tuple(self._finding(j, shares[:, j]) for j in range(shares.shape[1]))
        self._look_anywhere()
        rejected = min(self._anywhere, *(found.p_value for found in self._findings)) <= self.level
        if rejected:
            return "broken"
        if all(found.detectable <= self.demand.bias for found in self._findings):
            return "holds"
        if last:
            return "undecided"
        self.number += 1
        self._set_pilot()
        return None

    def _finding(self, j: int, shares: np.ndarray) -> DirectionFinding:
        direction, null = self._directions[j], self._null[j]
        found = doubted(one_sample(shares, null, rounding=direction.rounding), len(shares), RAREST)
        detectable = direction.rounding
        if found.error > 0.0:
            detectable += least_shift(found, self.level, len(shares), self.demand.power)
        elif alike_and_off(found):
            detectable = math.inf
        return DirectionFinding(
            direction.name,
            direction.kind,
            found.mean / null,
            found.error / abs(null),
            direction.rounding / abs(null),
            found.p_value,
            detectable / abs(null),
        )

    def _look_anywhere(self) -> None:
        fresh = torch.cat(self._fresh).numpy() if self._fresh else np.zeros(0)
        if len(fresh) < LEAST_DRAWS:
            return
        found = one_sample(fresh, rounding=self._rounding, side="greater")
        self._anywhere = doubted(found, len(fresh), RAREST).p_value
        if not self._crosses:
            return
        self._anywhere_detectable = min_detectable_bias(
            self.level,
            2 * min(self._pilot_draws, len(fresh)),
            std=math.sqrt(math.fsum(self._crossed) / self._crosses),
            variance=math.fsum(self._squares) / max(self._pairs, 1),
            rounding=self._rounding,
            power=self.demand.power,
        ) / float(torch.linalg.vector_norm(self.target))

    def _bias(self) -> float:
        """The root of ‖mean error‖² − tr Σ/T where that is positive."""
        if not self._pairs:
            return 0.0
        noise = math.fsum(self._squares) / self._pairs / self.draws
        return math.sqrt(max(float((self._sum / self.draws).square().sum()) - noise, 0.0))

    def result(self, outcome: Outcome, seconds: float) -> StagedMean:
        """The outcome with its evidence."""
        return StagedMean(
            outcome,
            self.draws,
            self.demand.level,
            self.level,
            self.demand.power,
            self._findings,
            self._anywhere,
            self._bias() / (float(torch.linalg.vector_norm(self.target)) or 1.0),
            self._anywhere_detectable,
            seconds,
        )


class Pooled(NamedTuple):
    """Findings of one kind over several problems, taken together.

    Attributes:
        kind: of the directions.
        problems: how many findings.
        share: mean share, weighted by the inverse squares of the errors.
        error: its standard error.
        p_value: two-sided, by Stouffer's sum of normal scores.
        detectable: a common bias of at least this share is rejected with the power asked for.
    """

    kind: str
    problems: int
    share: float
    error: float
    p_value: float
    detectable: float


def pooled(findings: Sequence[DirectionFinding], level: float, power: float = 0.99) -> Pooled | None:
    """Related findings of independent draws as one: a bias too small for each problem may be clear in all of them.

    The normal scores of the p-values, signed by the side of the deviation, are added and divided by the root of their
    number (Stouffer). Findings without any spread are left out; None if fewer than two remain.

    Args:
        findings: of one kind.
        level: of this test.
        power: for `detectable`.
    """
    from scipy import stats

    spread = [found for found in findings if found.error > 0.0]
    if len(spread) < 2:
        return None
    sides = np.array([math.copysign(1.0, found.share - 1.0) for found in spread])
    halves = np.array([max(found.p_value / 2, 1e-300) for found in spread])
    statistic = float((sides * stats.norm.isf(halves)).sum()) / math.sqrt(len(spread))
    weights = np.array([found.error**-2 for found in spread])
    share = float((weights * [found.share for found in spread]).sum() / weights.sum())
    error = float(weights.sum() ** -0.5)
    tolerated = float((weights * [found.rounding for found in spread]).sum() / weights.sum())
    # Stouffer's sum gives a common bias b the mean Σ b/error_f / √F
    per_share = sum(1 / found.error for found in spread) / math.sqrt(len(spread))
    reach = float(stats.norm.isf(level / 2)) + float(stats.norm.ppf(power))
    return Pooled(
        spread[0].kind,
        len(spread),
        share,
        error,
        float(2 * stats.norm.sf(abs(statistic))),
        tolerated + reach / per_share,
    )
