"""Which parts are worth their bytes: combinations of estimators at equal stored bytes, beside the paper's WTA-CRS.

`python -m wtacrs.validation.combinations CAPTURES` prints, for every combination, the median and the worst ratio of its
variance to that of WTA-CRS within the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, make, saved_bytes
from wtacrs.validation.captures import load_captures
from wtacrs.validation.comparison import SCORE_KINDS, LayerLike, ZeroProduct, compare_layer
from wtacrs.validation.equal_bytes import BASELINE, largest_budget
from wtacrs.validation.records import ScoreKind

# {k}: rows or slots, as many as fit
COMBINATIONS = (
    "systematic(budget={k})",
    'control_variate(base="mean", rows=systematic(budget={k}))',
    "quantized_rows(bits=4, rows=systematic(budget={k}))",
    'control_variate(base="mean", rows=quantized_rows(bits=2, rows=systematic(budget={k})))',
    'control_variate(base="mean", rows=quantized_rows(bits=4, rows=systematic(budget={k})))',
    'control_variate(base="mean", rows=hadamard_rotation(rows=quantized_rows(bits=2, rows=systematic(budget={k}))))',
    'control_variate(base="mean", rows=hadamard_rotation(rows=quantized_rows(bits=4, rows=systematic(budget={k}))))',
    "hadamard_rotation(rows=mixed_precision_rows(slots={k}))",
    'control_variate(base="mean", rows=mixed_precision_rows(slots={k}))',
    'control_variate(base="mean", rows=hadamard_rotation(rows=mixed_precision_rows(slots={k})))',
    "control_variate(rank=4, rows=hadamard_rotation(rows=mixed_precision_rows(slots={k})))",
    "control_variate(rank=16, rows=hadamard_rotation(rows=mixed_precision_rows(slots={k})))",
)


class Standing(NamedTuple):
    """One combination: ratios of its variance to the baseline's, over layers."""

    combination: str
    share: float
    scores: ScoreKind
    layers: int
    median: float
    worst: float


def largest_within(spec: str, x: Float[Tensor, "n d"], share: float) -> Estimator | None:
    """The estimator with the most rows or slots whose stored bytes stay within a share of those of `x`.

    Args:
        spec: with `{k}` for the number to be found.
        x: the layer's input.
        share: of its bytes.

    Returns:
        None if not even one fits.
    """
    allowed = int(share * x.numel() * x.element_size())
    most = x.shape[0] * (8 if "slots=" in spec else 1)
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        fits = saved_bytes(make(spec.format(k=middle)).compress(x, generator=_generator())) <= allowed
        low, high = (middle, high) if fits else (low, middle - 1)
    return make(spec.format(k=low)) if low else None


@torch.no_grad()
def standings(
    captures: Mapping[str, LayerLike],
    shares: Sequence[float],
    *,
    combinations: Sequence[str] = COMBINATIONS,
    scores: Sequence[ScoreKind] = SCORE_KINDS,
    draws: int = 8,
    generator: torch.Generator | None = None,
) -> list[Standing]:
    """Every combination at every share of the bf16 bytes, best median first; padding is left out of the layers."""
    ratios: dict[tuple[float, ScoreKind, str], list[float]] = {}
    for layer, capture in captures.items():
        x, dy = capture.x[capture.mask].to(torch.bfloat16), capture.dy[capture.mask]
        for share in shares:
            baseline = largest_budget(x, share)
            if baseline < 1:
                continue
            found = {spec: largest_within(spec, x, share) for spec in combinations}
            usable = {spec: estimator for spec, estimator in found.items() if estimator is not None}
            rivals = [make(BASELINE, budget=baseline), *usable.values()]
            try:
                rows = compare_layer(layer, x, dy, rivals, scores=scores, draws=draws, generator=generator)
            except ZeroProduct:
                continue
            for kind in scores:
                theirs, *ours = [row.variance for row in rows if row.scores == kind]
                for spec, variance in zip(usable, ours, strict=True):
                    if theirs > 0:
                        ratios.setdefault((share, kind, spec), []).append(variance / theirs)
    table = [
        Standing(spec, share, kind, len(each), median(each), max(each))
        for (share, kind, spec), each in ratios.items()
    ]
    return sorted(table, key=lambda row: (row.share, row.scores, row.median))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", help="file written by `wtacrs capture`")
    parser.add_argument("--bytes", type=float, nargs="+", default=[0.1, 0.3], help="shares of the bf16 bytes")
    parser.add_argument("--every", type=int, default=1, help="only every so many layers")
    parser.add_argument("--draws", type=int, default=8, help="Monte Carlo draws")
    chosen = parser.parse_args(arguments)
    try:
        captures = load_captures(chosen.captures)
        some = {name: captures[name] for name in list(captures)[:: max(chosen.every, 1)]}
        table = standings(some, chosen.bytes, draws=chosen.draws, generator=_generator())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in table:
        print(
            f"{row.share:.0%}  {row.scores:9}  {row.median:8.4f}  {row.worst:8.4f}  {row.layers:3}  {row.combination}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
