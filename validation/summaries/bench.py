"""A benchmark in a few numbers: every estimator on each random problem, and over all captured layers together."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from wtacrs.validation.records.base import ScoreKind
from wtacrs.validation.records.bench import BenchRow

CAPTURED = "captured layers"


class BenchSummary(NamedTuple):
    """One estimator over the problems of a group; one random problem is a group.

    Attributes:
        group: "n × d × m", or the captured layers.
        estimator: as it was asked for.
        scores: what rows are sampled by.
        problems: how many.
        kept: bytes kept over those of x in bf16, all problems together.
        compress: seconds, medians of the rounds, summed over the problems.
        contract: likewise.
        ratio: median over the problems of the median ratio to the exact product.
        low: the same of the lower quartile.
        high: the same of the upper quartile.
        error: median of variance and squared bias over ‖G‖².
        sampled: whether one of them is from Monte Carlo.
        over_paper: median of `BenchRow.over_paper`.
        worst: its largest.
        gigamacs: stated, summed; None where one is not.
        moved: bytes that operations read and write over `least`, all together.
        roof_share: least time over the measured one, all together.
    """

    group: str
    estimator: str
    scores: ScoreKind
    problems: int
    kept: float
    compress: float
    contract: float
    ratio: float
    low: float
    high: float
    error: float
    sampled: bool
    over_paper: float | None
    worst: float | None
    gigamacs: float | None
    moved: float
    roof_share: float


def bench_summaries(rows: Sequence[BenchRow]) -> list[BenchSummary]:
    """A summary per group and estimator, in the order of the rows."""
    groups: dict[tuple[str, str, ScoreKind], list[BenchRow]] = {}
    for row in rows:
        group = f"{row.n:,} × {row.d:,} × {row.m:,}" if row.layer is None else CAPTURED
        groups.setdefault((group, row.requested, row.scores), []).append(row)
    return [_summary(*key, mine) for key, mine in groups.items()]


def _summary(group: str, estimator: str, scores: ScoreKind, rows: Sequence[BenchRow]) -> BenchSummary:
    ratios = [row.over_paper for row in rows if row.over_paper is not None]
    macs = [row.macs for row in rows if row.macs is not None]
    return BenchSummary(
        group=group,
        estimator=estimator,
        scores=scores,
        problems=len(rows),
        kept=sum(row.kept for row in rows) / sum(2 * row.n * row.d for row in rows),
        compress=sum(row.compress.median for row in rows),
        contract=sum(row.contract.median for row in rows),
        ratio=median(row.ratio.median for row in rows),
        low=median(row.ratio.low for row in rows),
        high=median(row.ratio.high for row in rows),
        error=median(row.error for row in rows),
        sampled=any(row.draws is not None for row in rows),
        over_paper=median(ratios) if ratios else None,
        worst=max(ratios, default=None),
        gigamacs=sum(macs) / 1e9 if len(macs) == len(rows) else None,
        moved=sum(row.moved for row in rows) / sum(row.least for row in rows),
        roof_share=sum(row.least_seconds for row in rows) / sum(row.both.median for row in rows),
    )


def not_beaten(summaries: Sequence[BenchSummary]) -> list[BenchSummary]:
    """Those of one group that no other with the same scores beats in bytes, time and error together."""
    return [one for one in summaries if not any(_beats(other, one) for other in summaries)]


def _beats(one: BenchSummary, other: BenchSummary) -> bool:
    ours, theirs = ((s.kept, s.ratio, s.error) for s in (one, other))
    alike = one.group == other.group and one.scores == other.scores
    return alike and ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))
