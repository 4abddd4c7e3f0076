"""The claims of the theory as data: numbers, what must be true of them, and the verdict that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from wtacrs.validation.records.base import Record, Result, register_result


class Series(Record):
    """Points of one line or cloud; `estimator` is the spec whose look it takes, None for a line of reference."""

    table_series: ClassVar[Mapping[str, Sequence[str]]] = {"points": ("x", "y")}

    label: str
    estimator: str | None = None
    x: Annotated[Sequence[float], Field(min_length=1)]
    y: Annotated[Sequence[float], Field(min_length=1)]

    @model_validator(mode="after")
    def _as_long(self) -> Series:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.label!r} has {len(self.x)} x and {len(self.y)} y")
        return self


class Requirement(Record):
    """`factor · smaller ≤ larger + slack`, in words `text`; a side is a number, or the y of a series by its label."""

    text: str
    smaller: str | float
    larger: str | float
    where: Literal["every point", "nine points in ten", "some point", "first point", "last point"] = "every point"
    factor: float = 1.0
    slack: float = 0.0


_FORMER_NAMES = {"price": "oracle-ratio", "exact-rule": "optimal-rule"}


def _current_name(name: object) -> object:
    """The name of today for that of an older result file."""
    return _FORMER_NAMES.get(name, name) if isinstance(name, str) else name


class Claim(Record):
    """One sentence of the theory, the numbers that bear it out, and what must be true of these numbers.

    `status` "looks true" marks an ordering that is easily believed and false: `title` says what looks true, and the
    requirements are those of its counter-example. `source` names paper or theorem, `method` how the numbers were
    found: nothing here is sampled.
    """

    table_derived: ClassVar[Sequence[str]] = ("holds",)

    name: Annotated[str, BeforeValidator(_current_name)]
    title: str
    statement: str
    status: Literal["true", "looks true"]
    source: str
    method: Literal["closed form", "enumeration"]
    x_name: str
    y_name: str
    series: Annotated[Sequence[Series], Field(min_length=1)]
    requirements: Annotated[Sequence[Requirement], Field(min_length=1)]

    @model_validator(mode="after")
    def _comparable(self) -> Claim:
        places = {s.label: list(s.x) for s in self.series}
        if len(places) < len(self.series):
            raise ValueError(f"claim {self.name!r}: two series have one label")
        for requirement in self.requirements:
            labels = [side for side in (requirement.smaller, requirement.larger) if isinstance(side, str)]
            unknown = [label for label in labels if label not in places]
            if unknown or not labels:
                raise ValueError(f"claim {self.name!r}: {requirement.text!r} names no series {unknown or labels}")
            if any(places[label] != places[labels[0]] for label in labels):
                raise ValueError(f"claim {self.name!r}: {requirement.text!r} compares series at different x")
        return self

    def met(self, requirement: Requirement) -> bool:
        """Whether the numbers meet a requirement; NaN meets none."""
        smaller, larger = self._side(requirement.smaller), self._side(requirement.larger)
        length = max(len(smaller), len(larger))
        pairs = zip(smaller * (length // len(smaller)), larger * (length // len(larger)), strict=True)
        found = [requirement.factor * a <= b + requirement.slack for a, b in pairs]
        match requirement.where:
            case "first point":
                return found[0]
            case "last point":
                return found[-1]
            case "some point":
                return any(found)
            case "nine points in ten":
                return sum(found) >= 0.9 * len(found)
        return all(found)

    def _side(self, side: str | float) -> list[float]:
        if isinstance(side, str):
            return list(next(s.y for s in self.series if s.label == side))
        return [side]

    @property
    def broken(self) -> list[str]:
        """The requirements, in words, that the numbers do not meet."""
        return [r.text for r in self.requirements if not self.met(r)]

    @property
    def holds(self) -> bool:
        """Whether the numbers meet every requirement: they bear out a theorem, or are a counter-example."""
        return not self.broken

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if not self.holds:
            return "not borne out"
        return "holds" if self.status == "true" else "false, by counter-example"


@register_result
class TheoryResult(Result):
    """What is true of the estimators, and what only looks true."""

    kind: Literal["theory"] = "theory"
    claims: Sequence[Claim]

    @property
    def holds(self) -> bool:
        """Every claim holds."""
        return all(claim.holds for claim in self.claims)
