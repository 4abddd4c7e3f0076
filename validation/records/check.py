"""Verdicts on the properties of one estimator, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import AliasChoices, Field

from wtacrs.validation.records.base import Record, Result, register_result


class Verdict(Record):
    """One property checked on one estimator; `status` "expected failure" carries the declared reason in `detail`."""

    name: str = Field(validation_alias=AliasChoices("name", "law"))
    status: Literal["pass", "fail", "expected failure", "not applicable"]
    detail: str


@register_result
class CheckResult(Result):
    """The list of properties applied to one estimator."""

    kind: Literal["check"] = "check"
    estimator: str
    verdicts: Sequence[Verdict]

    @property
    def passed(self) -> bool:
        """No property failed."""
        return all(v.status != "fail" for v in self.verdicts)
