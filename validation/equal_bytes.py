"""The paper's WTA-CRS and the recommended estimator at equal stored bytes, layer by layer.

Both get the same share of the bytes that a layer's exact rows take in bf16, everything counted: rows, indices, weights,
steps, codes, base and seed. Padding rows are left out of the layer first, so that neither gains by avoiding them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, make, recommended, saved_bytes
from wtacrs.validation.comparison import (
    SCORE_KINDS,
    LayerLike,
    ZeroProduct,
    compare_layer,
    median_multiplications,
)
from wtacrs.validation.records import ScoreKind
from wtacrs.validation.results import ComparisonRow

BASELINE = 'wta_crs(winners="paper")'
_FAITHFUL = 1e-4  # of ‖G‖²: below this variance of the baseline a layer is as good as exact


class ByteRatio(NamedTuple):
    """Variance of the recommended estimator over that of the baseline, over layers.

    `worst` is the largest ratio among the layers whose baseline variance exceeds 1e-4 ‖G‖². More rows per byte cost
    more multiplications: `multiplications` and `baseline_multiplications` are the medians of both rivals, relative
    to the exact product.
    """

    share: float
    scores: ScoreKind
    layers: int
    median: float
    worst: float
    multiplications: float | None
    baseline_multiplications: float | None


def largest_budget(x: Float[Tensor, "n d"], share: float) -> int:
    """Rows that WTA-CRS can keep within a share of the bytes of `x`; 0 if not even one."""
    per_row = saved_bytes(make("wta_crs", budget=1).compress(x))
    return min(int(share * x.numel() * x.element_size()) // per_row, x.shape[0])


def compare_equal_bytes(
    captures: Mapping[str, LayerLike],
    shares: Sequence[float],
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] = SCORE_KINDS,
    draws: int = 32,
    generator: torch.Generator | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> dict[float, list[ComparisonRow]]:
    """Rows of the baseline and of `recommended`, for every share of the bf16 bytes.

    Args:
        captures: layer name to x, dy and mask.
        shares: of the bytes, in (0, 1].
        layers: which layers; all if None.
        scores: kinds of scores.
        draws: Monte Carlo draws for the recommended estimator, which has no closed form.
        generator: source of randomness.
        progress: called after each layer with its name, the number done, and their total.
        skipped: called with the name and the reason of a layer that is too small or whose product is zero.

    Raises:
        InputError: on an unusable share.
    """
    chosen = list(captures) if layers is None else list(layers)
    found: dict[float, list[ComparisonRow]] = {share: [] for share in shares}
    for done, layer in enumerate(chosen, start=1):
        capture = captures[layer]
        x, dy = capture.x[capture.mask].to(torch.bfloat16), capture.dy[capture.mask]
        for share in shares:
            try:
                estimators = _rivals(layer, x, share)
                found[share] += compare_layer(
                    layer, x, dy, estimators, scores=scores, draws=draws, generator=generator
                )
            except (ZeroProduct, _TooSmall) as reason:
                if skipped is not None:
                    skipped(layer, str(reason))
        if progress is not None:
            progress(layer, done, len(chosen))
    return found


class _TooSmall(InputError):
    pass


def _rivals(layer: str, x: Float[Tensor, "n d"], share: float) -> tuple[Estimator, Estimator]:
    n, d = x.shape
    budget = largest_budget(x, share) if n else 0
    if budget < 2:
        raise _TooSmall(f"layer {layer}: {share:g} of the bytes of {n} rows leave WTA-CRS fewer than two")
    return make(BASELINE, budget=budget), recommended(bytes=share, shape=(n, d), dtype=x.dtype)


def byte_ratios(rows: Mapping[float, Sequence[ComparisonRow]]) -> list[ByteRatio]:
    """Median and worst ratio, and the medians of the multiplications, for every share and kind of scores."""
    found = []
    for share, table in rows.items():
        for kind in dict.fromkeys(row.scores for row in table):
            pairs = [pair for pair in _pairs([row for row in table if row.scores == kind]) if pair[0].variance > 0]
            if pairs:
                found.append(_ratio(share, kind, pairs))
    return found


def _ratio(share: float, kind: ScoreKind, pairs: Sequence[tuple[ComparisonRow, ComparisonRow]]) -> ByteRatio:
    ratios = [ours.variance / theirs.variance for theirs, ours in pairs]
    worst = [ratio for ratio, (theirs, _) in zip(ratios, pairs, strict=True) if theirs.variance > _FAITHFUL]
    baseline, recommendation = zip(*pairs, strict=True)
    return ByteRatio(
        share=share,
        scores=kind,
        layers=len(pairs),
        median=median(ratios),
        worst=max(worst, default=0.0),
        multiplications=median_multiplications(recommendation),
        baseline_multiplications=median_multiplications(baseline),
    )


def _pairs(rows: Sequence[ComparisonRow]) -> list[tuple[ComparisonRow, ComparisonRow]]:
    """The rows of baseline and recommendation for every layer."""
    by_layer: dict[str, dict[bool, ComparisonRow]] = {}
    for row in rows:
        by_layer.setdefault(row.layer, {})[row.estimator.startswith("wta_crs")] = row
    return [(both[True], both[False]) for both in by_layer.values() if len(both) == 2]
