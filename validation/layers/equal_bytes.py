"""Estimators at equal stored bytes, beside the paper's WTA-CRS, layer by layer.

All get the same share of the bytes that a layer's exact rows take in bf16, everything counted: rows, indices, weights,
steps, codes, base and seed. Padding rows are left out of the layer first, so that none gains by avoiding them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from wtacrs.validation.layers.candidates import RECOMMENDED
from wtacrs.validation.layers.compare import median_macs
from wtacrs.validation.records.base import ScoreKind
from wtacrs.validation.records.compare import ComparisonRow

BASELINE = 'wta_crs(winners="paper")'
DEFAULT_CANDIDATES = (BASELINE, "systematic", *RECOMMENDED)
_FAITHFUL = 1e-4  # of ‖G‖²: below this variance of the baseline a layer is as good as exact

COMBINATIONS = (
    "systematic",
    'control_variate(base="mean", rows=systematic(budget=1))',
    "quantized_rows(bits=4, rows=systematic(budget=1))",
    'control_variate(base="mean", rows=quantized_rows(bits=2, rows=systematic(budget=1)))',
    'control_variate(base="mean", rows=quantized_rows(bits=4, rows=systematic(budget=1)))',
    'control_variate(base="mean", rows=hadamard_rotation(rows=quantized_rows(bits=2, rows=systematic(budget=1))))',
    'control_variate(base="mean", rows=hadamard_rotation(rows=quantized_rows(bits=4, rows=systematic(budget=1))))',
    "hadamard_rotation(rows=mixed_precision_rows(slots=1))",
    'control_variate(base="mean", rows=mixed_precision_rows(slots=1))',
    'control_variate(base="mean", rows=hadamard_rotation(rows=mixed_precision_rows(slots=1)))',
    "control_variate(rank=4, rows=hadamard_rotation(rows=mixed_precision_rows(slots=1)))",
    "control_variate(rank=16, rows=hadamard_rotation(rows=mixed_precision_rows(slots=1)))",
)
"""Which parts are worth their bytes: row designs, rounding, bits by the row, bases and rotation, alone and together."""


class ByteRatio(NamedTuple):
    """Variance of an estimator over that of the baseline, over layers, at one share of the bytes.

    `worst` is the largest ratio among the layers whose baseline variance exceeds 1e-4 ‖G‖². More rows per byte cost
    more macs: `macs` and `baseline_macs` are the medians of both candidates, relative to the exact product.
    """

    estimator: str
    share: float
    scores: ScoreKind
    layers: int
    median: float
    worst: float
    macs: float | None
    baseline_macs: float | None


def byte_ratios(rows: Iterable[ComparisonRow]) -> list[ByteRatio]:
    """Every estimator beside the baseline of the same layer, share and scores; the best median first.

    Rows at equal rows, and layers without the baseline (too small for two rows, say), are left out.
    """
    baseline: dict[tuple[float, ScoreKind, str], ComparisonRow] = {}
    others: dict[tuple[float, ScoreKind, str], list[ComparisonRow]] = {}
    for row in rows:
        if row.bytes_share is None:
            continue
        if row.requested == BASELINE:
            if (row.budget or 0) >= 2 and row.variance > 0:
                baseline[row.bytes_share, row.scores, row.layer] = row
        else:
            others.setdefault((row.bytes_share, row.scores, row.requested), []).append(row)
    found = []
    for (share, kind, requested), mine in others.items():
        pairs = [(theirs, row) for row in mine if (theirs := baseline.get((share, kind, row.layer))) is not None]
        if pairs:
            found.append(_ratio(requested, share, kind, pairs))
    return sorted(found, key=lambda ratio: (ratio.share, ratio.scores, ratio.median))


class LeftOut(NamedTuple):
    """Layers of one share and kind of scores that no ratio counts, of all.

    On `small` ones the baseline is too large, or has fewer than two rows; on `exact` ones it has no variance.
    """

    share: float
    scores: ScoreKind
    layers: int
    small: int
    exact: int


def left_out(rows: Iterable[ComparisonRow]) -> list[LeftOut]:
    """Where the baseline has no variance that others could be measured by, and why."""
    layers: dict[tuple[float, ScoreKind], dict[str, ComparisonRow | None]] = {}
    for row in rows:
        if row.bytes_share is not None:
            mine = layers.setdefault((row.bytes_share, row.scores), {})
            mine.setdefault(row.layer, None)
            if row.requested == BASELINE:
                mine[row.layer] = row
    found = []
    for (share, kind), mine in layers.items():
        small = sum(row is None or (row.budget or 0) < 2 for row in mine.values())
        exact = sum(row is not None and (row.budget or 0) >= 2 and row.variance <= 0 for row in mine.values())
        if small or exact:
            found.append(LeftOut(share, kind, len(mine), small, exact))
    return found


def _ratio(
    requested: str, share: float, kind: ScoreKind, pairs: Sequence[tuple[ComparisonRow, ComparisonRow]]
) -> ByteRatio:
    ratios = [ours.variance / theirs.variance for theirs, ours in pairs]
    worst = [ratio for ratio, (theirs, _) in zip(ratios, pairs, strict=True) if theirs.variance > _FAITHFUL]
    baseline, mine = zip(*pairs, strict=True)
    return ByteRatio(
        estimator=requested,
        share=share,
        scores=kind,
        layers=len(pairs),
        median=median(ratios),
        worst=max(worst, default=0.0),
        macs=median_macs(mine),
        baseline_macs=median_macs(baseline),
    )
