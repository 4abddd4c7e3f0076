"""Verdicts on the properties of one estimator, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from wtacrs.validation.records.base import Record, Result, counted, register_result

Status = Literal["holds", "broken", "undecided", "expected failure", "not applicable"]
Outcome = Literal["holds", "broken", "undecided"]
_FORMER = {"pass": "holds", "fail": "broken"}


class DirectionRecord(Record):
    """The mean along one direction; see `wtacrs.validation.statistics.staged_means.DirectionFinding`."""

    name: str
    kind: str
    share: float
    error: float
    rounding: float
    p_value: float
    detectable: float


class Verdict(Record):
    """One property checked on one estimator.

    Attributes:
        name: of the property.
        status: of the four outcomes; "expected failure" carries the declared reason in `detail`.
        detail: what was found, in one line.
        draws: of a test of a mean.
        ruled_out: biases above this share of the exact product would have been rejected with probability `power`.
        power: as asked for.
        bias: where a mean is rejected, the share it is off by.
        seconds: time that the test of the mean took.
        directions: what was found along each direction.
    """

    name: str = Field(validation_alias=AliasChoices("name", "law"))
    status: Annotated[Status, BeforeValidator(lambda given: _FORMER.get(given, given))]
    detail: str
    draws: int | None = None
    ruled_out: float | None = None
    power: float | None = None
    bias: float | None = None
    seconds: float | None = None
    directions: tuple[DirectionRecord, ...] = ()


@register_result
class CheckResult(Result):
    """The list of properties applied to one estimator, and the seconds that it took."""

    kind: Literal["check"] = "check"
    estimator: str
    verdicts: Sequence[Verdict]
    seconds: float | None = None
    table_derived: ClassVar[Sequence[str]] = ("outcome",)

    @property
    def headline(self) -> str:
        """The estimator, the outcome, and the number of properties."""
        return f"{self.estimator}: {self.outcome}, {counted(len(self.verdicts), 'property', 'properties')}"

    @property
    def outcome(self) -> Outcome:
        """Broken if any property is, else undecided if any is, else all hold that apply."""
        found = {verdict.status for verdict in self.verdicts}
        if "broken" in found:
            return "broken"
        return "undecided" if "undecided" in found else "holds"
