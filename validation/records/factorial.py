"""A factorial experiment as data: what was crossed, every run, and what one factor does at every level of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from wtacrs.validation.records.base import Record, Result, counted, register_result
from wtacrs.validation.records.experiment import Design
from wtacrs.validation.records.training import TrainingResult

ContrastKind = Literal["effect", "interaction"]
ContrastVerdict = Literal["differs", "within the margin", "undecided"]


class FactorialRun(Record):
    """One run: a level of every factor, its seed, and its result."""

    levels: Mapping[str, str]
    seed: int
    result: TrainingResult


class CellMean(Record):
    """The runs at one level of every factor: mean metric over seeds, and its standard error."""

    levels: Mapping[str, str]
    mean: float
    error: float | None


class Contrast(Record):
    """What a level of the first factor does beside that factor's first level.

    An "effect" is at one level of another factor, averaged over all further ones; without another factor it is that over
    all. An "interaction" is an effect minus that at the other factor's first level. `low` and `high` bound the
    1 − 2·level interval, by Student's t over the seeds; `different` is the p-value of "it is zero", `within` that of "it
    is the margin or more away from zero", both adjusted over all contrasts of their kind (Holm).
    """

    kind: ContrastKind
    treatment: str
    factor: str | None
    at: str | None
    difference: float
    error: float
    low: float
    high: float
    different: float
    within: float
    verdict: ContrastVerdict


@register_result
class FactorialResult(Result):
    """All runs of crossed factors, and what follows; `config` is the file that asked for them.

    `factors` are the levels of every factor in their order; the first factor is the one whose effects are estimated.
    """

    main_table: ClassVar[str | None] = "contrasts"

    kind: Literal["factorial"] = "factorial"
    config: dict[str, Any]
    metric: str
    majority: float
    dev_size: int
    factors: Mapping[str, Sequence[str]]
    runs: Sequence[FactorialRun]
    cells: Sequence[CellMean]
    contrasts: Sequence[Contrast]
    design: Design | None = None

    @property
    def headline(self) -> str:
        """What is crossed, over how many seeds."""
        crossed = " × ".join(f"{len(levels)} {name}" for name, levels in self.factors.items())
        return f"{crossed}, {counted(len({run.seed for run in self.runs}), 'seed')}, {self.metric}"
