"""What choices of the number of winners |C| cost by architecture, task, time in training and scores, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import model_validator

from wtacrs.validation.records.base import Record, Result, ScoreKind, counted, register_result

PAPER, OPTIMAL = '"paper"', '"optimal"'


class RuleRegrets(Record):
    """Regrets of every rule for |C| on the layers of one state, with one kind of scores at one budget.

    `best` has for every layer the |C| of least variance among 0 … k − 1. `regrets` has for every rule, as `winners` of
    `wta_crs` spells it, and every layer the variance at its |C| over the least one: 1 is best. It is infinite where the
    best |C| alone is exact.
    """

    scores: ScoreKind
    budget: int | float
    best: Sequence[int]
    regrets: Mapping[str, Sequence[float]]


class WinnerState(Record):
    """One batch of a task in a model at one time of its training.

    `step` counts the steps of exact training before it. `rows` are those of a layer that no mask calls padding: n, of
    which budgets are shares. Everything in `choices` goes by the place of a layer.
    """

    table_series: ClassVar[Mapping[str, Sequence[str]]] = {"layers": ("layers", "rows")}

    model: str
    task: str
    seed: int
    step: int
    layers: Sequence[str]
    rows: Sequence[int]
    choices: Sequence[RuleRegrets]

    @model_validator(mode="after")
    def _as_long(self) -> WinnerState:
        held: list[Sequence[float]] = [self.rows]
        for choice in self.choices:
            held += [choice.best, *choice.regrets.values()]
        if any(len(values) != len(self.layers) for values in held):
            told = f"state {self.model!r}, {self.task!r}, step {self.step}"
            raise ValueError(f"{told}: {len(self.layers)} layers and other numbers of values")
        return self


@register_result
class WinnersResult(Result):
    """Exact variances of WTA-CRS under several rules for |C|, over those at the best |C|.

    Attributes:
        rules: as `winners` of `wta_crs` spells them; a fraction is one of the k rows.
        age: the stale scores know the gradient norms of so many steps before.
        batch_size: examples of a captured batch, and of a step.
        max_length: of an input, in tokens.
        min_rows: layers with fewer rows are left out.
        states: every model on every task from every seed at every time.
    """

    main_table: ClassVar[str | None] = "regrets"
    compact: ClassVar[bool] = True

    kind: Literal["winners"] = "winners"
    rules: Sequence[str]
    age: int
    batch_size: int
    max_length: int
    min_rows: int
    states: Sequence[WinnerState]

    @property
    def cases(self) -> int:
        """How many regrets every rule has."""
        return sum(len(state.layers) * len(state.choices) for state in self.states)

    @property
    def headline(self) -> str:
        """How much was examined."""
        models, tasks = ({getattr(state, name) for state in self.states} for name in ("model", "task"))
        return f"{counted(len(models), 'model')} × {counted(len(tasks), 'task')}, {counted(self.cases, 'case')}"
