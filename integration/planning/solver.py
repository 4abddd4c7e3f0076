"""The best choice for every block under a limit of memory: an integer program, solved exactly by HiGHS.

With x_bc = 1 where block b takes choice c, time and noise are Σ x_bc t_bc and Σ x_bc v_bc, and the bytes alive at
every moment of the step (`moments_of`) are linear in x too, a row of the program each. One of time and noise is
minimised under a ceiling of the other, to within `GAP`, which is less than a measurement tells; a small price of the
other, and a smaller one of memory, decide between plans that are alike in it.

Limits m_0 ≤ … ≤ m_J lie at equal distances from m_0, the peak of the best plan within the lowest peak of all plans, to
that of the best plan without a limit; there is but m_0 where the latter is no higher than the lowest peak.
With s_i the plan that is found for m_i, the limit m_j is given s_i of the largest i ≥ j whose peak is at most m_j. Less
memory never asks for a higher peak, however well the programs are solved.

*Proof.* Let j < k, with i and l chosen for them. If s_l has a peak of at most m_j, then i ≥ l ≥ k, since l was to be
had for j; the peak of s_i is at most m_j ≤ m_k, so that l ≥ i: both are one plan. Else the peak of s_l is above m_j,
which that of s_i is not. ∎

Memory between two limits is bisected, until a step is below `STEP` of it: the limit in the middle is given the plan that
is found for it, if its peak lies from that of the lower limit's plan to that of the upper one's and it is better than
the lower one's, or else the lower one's. The peaks of all limits found so far never fall, by induction, and which limits
there are does not depend on what is asked. So neither do peaks of any two amounts of memory.

Bytes are integers in the program, of a unit that is a millionth of the largest sum, or one byte; seconds and noise have a
ten-millionth of theirs. All are rounded up, so that no limit is passed, and the peak that is told is that of the program.
Choices that another choice of the block beats or equals in everything are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.planning.moments import moments_of, noise_of, peak_of, seconds_of
from wtacrs.validation.arguments import shown
from wtacrs.validation.records.plan import AlikePlan, Choice, CostTable, OptionCosts, RestCosts
from wtacrs.validation.records.units import megabytes

Objective = Literal["seconds", "noise"]
BYTE_UNITS = 1_000_000
"""Units of bytes in the program, of the most that a plan may need."""
OTHER_UNITS = 10_000_000
"""Units of seconds and of noise."""
GAP = 0.01
"""How far above the least time, or noise, a plan may be, relatively."""
STEPS = 16
"""J, the limits that plans are found for, less one."""
STEP = 1e-3
"""How far below the memory that is asked for the limit of its plan may be, relatively."""
_PEAK_GAP = 5e-3
_PRICE = 1e-4  # of the largest noise, in parts of the largest time, or the other way round
_PEAK_PRICE = 1e-5  # of the largest peak, likewise


@dataclass(frozen=True)
class Solution:
    """A plan by its costs.

    Attributes:
        options: of every block.
        rest: of the output layer.
        peak: bytes, with all that is always there.
        moment: at which the peak is reached.
        seconds: of the step.
        noise: over the minibatch's variance.
    """

    options: tuple[OptionCosts, ...]
    rest: RestCosts
    peak: int
    moment: str
    seconds: float
    noise: float


class Front:
    """The best plans of a table for all amounts of memory, the fastest under a ceiling of noise or the other way round.

    Args:
        table: costs of all choices.
        noise_ceiling: the most noise, over the minibatch's variance; time is minimised.
        time_ceiling: the most seconds; noise is minimised. A plan at a ceiling is within it; a positive ceiling holds to
            within (blocks + 1) / `OTHER_UNITS` of the most that a plan may cost.
        kept_as: a choice of every block; all blocks together keep no more than if all had it.
        progress: called with how many limits are done, and how many there are.

    Attributes:
        points: limits and their plans, by rising memory.

    Raises:
        InputError: unless one ceiling is given, if no plan is under it, or if a block does not have the choice.
    """

    def __init__(
        self,
        table: CostTable,
        *,
        noise_ceiling: float | None = None,
        time_ceiling: float | None = None,
        kept_as: Choice | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        objective, ceiling = _goal(noise_ceiling, time_ceiling)
        self._objective: Objective = objective
        self._ceilings: dict[Objective, float] = {"noise" if objective == "seconds" else "seconds": ceiling}
        self._program = _Program(table, kept_as)
        lowest = self._program.lowest(self._ceilings)
        free = self._program.best(objective, None, self._ceilings)
        if lowest is None or free is None:
            which = "" if kept_as is None else f" that keeps no more than {kept_as} would"
            raise InputError(f"{_told(self._ceilings)}: no plan{which} is under it, whatever the memory")
        # The lowest peak says nothing of time and noise, and is that of many plans where it lies outside the blocks.
        first = free if free.peak <= lowest.peak else self._within(lowest.peak, lowest)
        self._lowest = first
        found = [(first.peak, first)]
        if first is not free:
            limits = [first.peak + (free.peak - first.peak) * i // STEPS for i in range(STEPS)]
            for done, limit in enumerate(limits[1:], start=1):
                found.append((limit, self._within(limit, first)))
                if progress is not None:
                    progress(done, STEPS)
            found.append((free.peak, free))
        self.points = _chosen(found)
        self._between: dict[int, Solution] = {}

    def at(self, memory: int) -> Solution:
        """The plan for an amount of memory, in bytes, with all that is always there.

        Raises:
            InputError: if no plan needs as little; it says what the least is, and what limits it.
        """
        if isinstance(memory, bool) or not isinstance(memory, int) or memory <= 0:
            raise InputError(f"memory={shown(memory)} must be a positive number of bytes")
        place = sum(limit <= memory for limit, _ in self.points) - 1
        if place < 0:
            raise InputError(_infeasible(self._program, memory, self._ceilings, self._lowest))
        if place == len(self.points) - 1:
            return self.points[-1][1]
        low, high = self.points[place], self.points[place + 1]
        while high[0] - low[0] > max(STEP * low[0], 1) and high[1] is not low[1]:
            middle = self._middle(low, high)
            low, high = (middle, high) if middle[0] <= memory else (low, middle)
        return high[1] if high[1].peak <= memory else low[1]

    def _within(self, limit: int, known: Solution) -> Solution:
        """The plan that is found for a limit, or a known one that it holds if the program's tolerances fail it."""
        found = self._program.best(self._objective, limit, self._ceilings)
        return known if found is None or found.peak > limit else found

    def _middle(self, low: tuple[int, Solution], high: tuple[int, Solution]) -> tuple[int, Solution]:
        """The limit between two, with a plan whose peak lies between theirs."""
        limit = (low[0] + high[0]) // 2
        if limit not in self._between:
            self._between[limit] = self._plan_between(limit, low[1], high[1])
        return limit, self._between[limit]

    def _plan_between(self, limit: int, low: Solution, high: Solution) -> Solution:
        if high.peak <= limit:
            return high
        found = self._program.best(self._objective, limit, self._ceilings)
        if found is None or not low.peak <= found.peak <= high.peak:
            return low
        better = getattr(found, self._objective) < getattr(low, self._objective)
        return found if better else low


def _chosen(found: Sequence[tuple[int, Solution]]) -> list[tuple[int, Solution]]:
    """For every limit the plan of the largest limit whose peak it holds."""
    return [
        (limit, [plan for _, plan in found[place:] if plan.peak <= limit][-1])
        for place, (limit, _) in enumerate(found)
    ]


def solve(
    table: CostTable, memory: int, *, noise_ceiling: float | None = None, time_ceiling: float | None = None
) -> Solution:
    """The plan of `Front` for an amount of memory.

    Raises:
        InputError: as `Front`, and `Front.at`.
    """
    return Front(table, noise_ceiling=noise_ceiling, time_ceiling=time_ceiling).at(memory)


def least_memory(
    table: CostTable, *, noise_ceiling: float | None = None, time_ceiling: float | None = None
) -> Solution:
    """The plan with the lowest peak under a ceiling, or under none.

    Raises:
        InputError: if no plan is under the ceiling.
    """
    given: dict[Objective, float] = {}
    if noise_ceiling is not None:
        given["noise"] = noise_ceiling
    if time_ceiling is not None:
        given["seconds"] = time_ceiling
    found = _Program(table).lowest(given)
    if found is None:
        raise InputError(f"{_told(given)}: no plan is under it, whatever the memory")
    return found


def stock_solution(table: CostTable) -> Solution:
    """The stock step, by its costs: the first option of every block, and of the rest."""
    return _Program(table).solution([0] * len(table.blocks), 0)


def alike_plans(table: CostTable) -> list[AlikePlan]:
    """One estimator in all blocks, with stock neighbours and output layer, for all estimators among the choices."""
    names = [option.choice.estimator for option in table.blocks[0].options]
    found = []
    for estimator in dict.fromkeys(name for name in names if name is not None):
        options = _all_with(table, Choice(estimator=estimator))
        if options is not None:
            found.append(
                AlikePlan(
                    estimator=estimator,
                    kept=sum(option.kept for option in options),
                    peak=peak_of(table, options, 0)[0],
                    seconds=seconds_of(options, table.rest[0]),
                    noise=noise_of(options),
                )
            )
    return found


def _all_with(table: CostTable, choice: Choice) -> list[OptionCosts] | None:
    """What every block costs with a choice; None if one of them does not have it."""
    found = [next((o for o in block.options if o.choice == choice), None) for block in table.blocks]
    return [option for option in found if option is not None] if None not in found else None


def check_ceilings(noise_ceiling: float | None, time_ceiling: float | None) -> None:
    """Refuse ceilings that `Front` would refuse.

    Raises:
        InputError: unless one is given, and is a number from 0.
    """
    _goal(noise_ceiling, time_ceiling)


def _goal(noise_ceiling: float | None, time_ceiling: float | None) -> tuple[Objective, float]:
    if (noise_ceiling is None) == (time_ceiling is None):
        raise InputError(
            f"noise_ceiling={noise_ceiling}, time_ceiling={time_ceiling}: one of them must be given, and one alone"
        )
    name, value = ("noise_ceiling", noise_ceiling) if time_ceiling is None else ("time_ceiling", time_ceiling)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(f"{name}={shown(value)} must be a number from 0")
    return ("seconds" if name == "noise_ceiling" else "noise"), float(value)


def _infeasible(program: _Program, memory: int, ceilings: dict[Objective, float], within: Solution) -> str:
    least = program.lowest({})
    assert least is not None
    least = min(least, within, key=lambda plan: plan.peak)  # peaks are lowest but for a gap
    fixed = f"{megabytes(program.table.always)} MB are always there"
    told = f"memory={megabytes(memory)} MB: "
    if least.peak > memory:
        return f"{told}no plan needs less than {megabytes(least.peak)} MB, in {least.moment}; {fixed}"
    return (
        f"{told}with {_told(ceilings)} no plan needs less than {megabytes(within.peak)} MB, in {within.moment}; "
        f"without it {megabytes(least.peak)} MB would do; {fixed}"
    )


def _told(ceilings: dict[Objective, float]) -> str:
    words = {"noise": "noise_ceiling={:.4g}", "seconds": "time_ceiling={:.4g} s"}
    return ", ".join(words[name].format(value) for name, value in ceilings.items()) or "no ceiling"


Row = tuple[dict[int, float], float, float]
"""Coefficients by variable, and the least and the most that their sum may be."""


class _Scale:
    """Numbers as integers of a unit, of which the largest possible sum has so many."""

    def __init__(self, largest: float, units: int) -> None:
        self.unit = largest / units or 1.0

    def up(self, value: float) -> int:
        """Rounded up; what is an integer but for the rounding of the division stays."""
        return math.ceil(round(value / self.unit, 6))

    def down(self, value: float) -> int:
        """Rounded down, likewise."""
        return math.floor(round(value / self.unit, 6))


def _byte_unit(table: CostTable) -> int:
    """A whole number of bytes, of which the most that is ever alive has `BYTE_UNITS` at most."""
    blocks = table.blocks
    most = [max(max(abs(o.kept), o.forward, o.backward) for o in block.options) for block in blocks]
    apart = [abs(n) for r in table.rest for n in (*r.forward, *r.between, *r.backward, *r.until)]
    largest = table.always + sum(most) + max(most) + sum(b.gradients for b in blocks) + max(apart)
    return max(1, -(-largest // BYTE_UNITS))


def _without_dominated(table: CostTable) -> CostTable:
    """Without choices that another one of the block beats or equals in everything; the first one stays."""
    blocks = [block.model_copy(update={"options": _undominated(block.options)}) for block in table.blocks]
    return table.model_copy(update={"blocks": blocks})


def _undominated(options: Sequence[OptionCosts]) -> list[OptionCosts]:
    kept: list[OptionCosts] = []
    for option in sorted(options, key=_costs):
        if not any(_dominates(other, option) for other in kept):
            kept.append(option)
    return [option for option in options if option is options[0] or option in kept]


def _costs(option: OptionCosts) -> tuple[float, ...]:
    return option.seconds, option.noise, option.kept, option.forward, option.backward


def _dominates(one: OptionCosts, other: OptionCosts) -> bool:
    alike = one.group is None or one.group == other.group
    return alike and all(a <= b for a, b in zip(_costs(one), _costs(other), strict=True))


def _in_units(table: CostTable, unit: int) -> CostTable:
    """The table with bytes in units, each rounded up."""

    def up(size: int) -> int:
        return -(-size // unit)

    blocks = [
        block.model_copy(
            update={
                "gradients": up(block.gradients),
                "options": [
                    option.model_copy(
                        update={name: up(getattr(option, name)) for name in ("kept", "forward", "backward")}
                    )
                    for option in block.options
                ],
            }
        )
        for block in table.blocks
    ]
    parts = ("forward", "between", "backward", "until")
    rest = [r.model_copy(update={name: [up(n) for n in getattr(r, name)] for name in parts}) for r in table.rest]
    return table.model_copy(update={"fixed": {"all": up(table.always)}, "blocks": blocks, "rest": rest})


class _Program:
    """The constraints of a table.

    Variables are x of all blocks, one after the other, then y of the choices of the output layer, then what the blocks
    before every block keep together (which makes the rows short), then the peak, then one for every group.
    """

    def __init__(self, table: CostTable, kept_as: Choice | None = None) -> None:
        alike = None if kept_as is None else _all_with(table, kept_as)
        if kept_as is not None and alike is None:
            there = [str(option.choice) for option in table.blocks[0].options]
            raise InputError(
                f"kept_as={str(kept_as)!r} is no choice of every block; choices are {'; '.join(there)}"
            )
        table = _without_dominated(table)
        self._unit = _byte_unit(table)
        self.table, self._table = table, _in_units(table, self._unit)
        blocks = self._table.blocks
        self._starts = np.cumsum([0, *(len(block.options) for block in blocks)]).tolist()
        self._rest = self._starts[-1]
        self._sums = self._rest + len(table.rest)
        self._peak = self._sums + len(blocks)
        self._groups = _groups(table)
        self._size = self._peak + 1 + len(self._groups)
        self._options = [option for block in blocks for option in block.options]
        self._others: dict[Objective, _Scale] = {
            name: _Scale(self._largest(name), OTHER_UNITS) for name in ("seconds", "noise")
        }
        self._rows: list[Row] = []
        self._choose()
        self._sum_up()
        self._moments()
        if alike is not None:  # rounded up one by one, as those of the program are
            most = sum(-(-option.kept // self._unit) for option in alike)
            self._rows.append(({self._sums + len(blocks) - 1: 1.0}, -math.inf, float(most)))

    def best(self, objective: Objective, memory: int | None, ceilings: dict[Objective, float]) -> Solution | None:
        """Best by the objective, in any memory if it is None; None if no plan is within the limits."""
        limit = None if memory is None else memory // self._unit
        wanted = self._coefficients(objective)
        for place, size in self._coefficients("noise" if objective == "seconds" else "seconds").items():
            wanted[place] = wanted.get(place, 0.0) + _PRICE * size
        wanted[self._peak] = _PEAK_PRICE * OTHER_UNITS / BYTE_UNITS
        found = self._run(wanted, self._ceilings(ceilings), limit, gap=GAP)
        return None if found is None else self._read(found)

    def lowest(self, ceilings: dict[Objective, float]) -> Solution | None:
        """With the lowest peak."""
        found = self._run({self._peak: 1.0}, self._ceilings(ceilings), None)
        return None if found is None else self._read(found)

    def _choose(self) -> None:
        """One choice for every block and for the output layer, of one group."""
        for start, end in zip(self._starts, self._starts[1:], strict=False):
            self._rows.append((dict.fromkeys(range(start, end), 1.0), 1.0, 1.0))
        self._rows.append((dict.fromkeys(range(self._rest, self._sums), 1.0), 1.0, 1.0))
        first = self._peak + 1
        if self._groups:
            self._rows.append((dict.fromkeys(range(first, self._size), 1.0), 1.0, 1.0))
        for place, option in enumerate(self._options):
            if option.group is not None:
                self._rows.append(({place: 1.0, first + self._groups.index(option.group): -1.0}, -math.inf, 0.0))

    def _sum_up(self) -> None:
        """What blocks 0 … i keep."""
        for i, (start, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            row = {place: float(self._options[place].kept) for place in range(start, end)}
            row[self._sums + i] = -1.0
            if i:
                row[self._sums + i - 1] = 1.0
            self._rows.append((row, 0.0, 0.0))

    def _moments(self) -> None:
        """The peak is at least what is alive at every moment."""
        gradients = [block.gradients for block in self._table.blocks]
        for moment in moments_of(self._table):
            row = {self._peak: -1.0}
            if moment.kept:
                row[self._sums + moment.kept - 1] = 1.0
            there = self._table.always + sum(gradients[moment.gradients :])
            for place, size in enumerate(moment.rest):
                row[self._rest + place] = float(there + size)
            if moment.running is not None:
                for place in range(self._starts[moment.running], self._starts[moment.running + 1]):
                    row[place] = float(getattr(self._options[place], moment.part))
            self._rows.append((row, -math.inf, 0.0))

    def _largest(self, name: Objective) -> float:
        found = sum(max(getattr(option, name) for option in block.options) for block in self.table.blocks)
        return found + (max(rest.seconds for rest in self.table.rest) if name == "seconds" else 0.0)

    def _coefficients(self, name: Objective) -> dict[int, float]:
        up = self._others[name].up
        found = {place: float(up(getattr(option, name))) for place, option in enumerate(self._options)}
        if name == "seconds":
            found |= {self._rest + place: float(up(rest.seconds)) for place, rest in enumerate(self.table.rest)}
        return found

    def _ceilings(self, ceilings: dict[Objective, float]) -> list[Row]:
        return [
            (self._coefficients(name), -math.inf, self._ceiling(name, value)) for name, value in ceilings.items()
        ]

    def _ceiling(self, name: Objective, value: float) -> float:
        """The ceiling in units, and the one by which every cost may be rounded up: a plan at the ceiling is within it."""
        roundings = len(self._table.blocks) + 1
        return float(self._others[name].down(value) + (roundings if value > 0 else 0))

    def _run(
        self,
        objective: dict[int, float],
        rows: Sequence[Row],
        limit: int | None,
        *,
        gap: float = _PEAK_GAP,
    ) -> list[int] | None:
        """An optimum to within a relative gap, or None if there is no plan."""
        every = [*self._rows, *rows]
        entries = [(i, place, value) for i, (row, _, _) in enumerate(every) for place, value in row.items()]
        lines, places, values = (np.array(column) for column in zip(*entries, strict=True))
        matrix = sparse.csr_array((values, (lines, places)), shape=(len(every), self._size))
        costs = np.zeros(self._size)
        costs[list(objective)] = list(objective.values())
        binary = np.ones(self._size)
        binary[self._sums : self._peak + 1] = 0
        lower, upper = np.zeros(self._size), np.ones(self._size)
        lower[self._sums : self._peak + 1], upper[self._sums : self._peak + 1] = -np.inf, np.inf
        if limit is not None:
            upper[self._peak] = limit
        constraints = LinearConstraint(matrix, [low for _, low, _ in every], [high for _, _, high in every])
        found: Any = milp(
            costs, integrality=binary, bounds=Bounds(lower, upper), constraints=constraints,
            options={"mip_rel_gap": gap},
        )  # fmt: skip
        if found.status == 2:
            return None
        if found.x is None or found.status != 0:
            raise RuntimeError(f"the integer program was not solved: {found.message}")
        return [int(place) for place in np.flatnonzero(found.x[: self._sums] > 0.5)]

    def _read(self, ones: Sequence[int]) -> Solution:
        chosen = [place - start for place, start in zip(ones[:-1], self._starts, strict=False)]
        return self.solution(chosen, ones[-1] - self._rest)

    def solution(self, chosen: Sequence[int], rest: int) -> Solution:
        """A plan by the places of its choices; its peak is that of the program."""
        rounded = [block.options[place] for block, place in zip(self._table.blocks, chosen, strict=True)]
        options = [block.options[place] for block, place in zip(self.table.blocks, chosen, strict=True)]
        peak, moment = peak_of(self._table, rounded, rest)
        return Solution(
            options=tuple(options),
            rest=self.table.rest[rest],
            peak=peak * self._unit,
            moment=moment,
            seconds=seconds_of(options, self.table.rest[rest]),
            noise=noise_of(options),
        )


def _groups(table: CostTable) -> list[str]:
    found = {option.group: None for block in table.blocks for option in block.options if option.group is not None}
    return list(found)
