"""Whether the order of estimators on one model holds on another, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wtacrs.validation.records.base import Record, Result, ScoreKind, register_result


class Standing(Record):
    """Median over layers of Var Ĝ / ‖G‖² of one estimator in one file."""

    file: str
    scores: ScoreKind
    budget: int | float
    estimator: str
    layers: int
    variance: float


class TransferPair(Record):
    """What the order of estimators on one file says about another.

    `tau` is Kendall's τ-b of the medians, None where all are tied. `regret` is the variance on `target` of the best on
    `source` over that of the best on `target`: 1 says that nothing is lost.
    """

    source: str
    target: str
    scores: ScoreKind
    budget: int | float
    tau: float | None
    chosen: str
    best: str
    regret: float


@register_result
class TransferResult(Result):
    """Estimators on several files of captures; `models` says what each file is of."""

    kind: Literal["transfer"] = "transfer"
    models: dict[str, str]
    standings: Sequence[Standing]
    pairs: Sequence[TransferPair]
