"""Exact variance of WTA-CRS on one layer for every number of winners and every budget, with one sort and suffix sums.

With rows in order of falling score, T the ranks ≥ c of positive score, `S_c = Σ_T s`, `Q_c = Σ_T w²/s` and
`G_c = Σ_T Z`, the variance with c winners of k rows is `(S_c Q_c − ‖G_c‖²) / (k − c)`. None of the three knows k, so
one set of sums serves all budgets. `S` and `Q` are suffix sums. `‖G_c‖²` grows by one pair at a time,
`‖G + Z‖² = ‖G‖² + 2⟨G, Z⟩ + ‖Z‖²`, done for a block of rows at once up to the largest k; it is the only part that
costs O(n·d·m).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from wtacrs.estimators import InputError, rows_for, sampling_scores
from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.sizing import check_budget
from wtacrs.estimators.rows.ranking import Ranking, rank_rows
from wtacrs.estimators.rows.row_estimator import pair_norms
from wtacrs.estimators.rows.wta_crs import fixed_winners, winner_objective
from wtacrs.validation.layers.captures import load_captures, on_device
from wtacrs.validation.layers.compare import ZeroProduct
from wtacrs.validation.layers.scores import layer_scores
from wtacrs.validation.records.base import ScoreKind
from wtacrs.validation.records.sweep import WinnerSweep
from wtacrs.validation.runner import TaskOutput

MOST_POINTS = 200
"""A longer curve is thinned to at most so many points."""

_BLOCK = 128
_ROUNDING = 1e-12


class TailSums(NamedTuple):
    """Sums over the tail for every number of winners c, whatever the budget.

    Attributes:
        scores: `S_c`, c = 0 … n.
        ratios: `Q_c`, c = 0 … n − 1.
        products: `‖G_c‖²`, c = 0 … k − 1 for the largest k; None if they were not asked for.
        reachable: `‖G_0‖²`, over the rows of positive score; None if the products were not asked for.
        total: `‖G‖²`, over all rows; likewise.
    """

    scores: Float64[Tensor, " n+1"]
    ratios: Float64[Tensor, " n"]
    products: Float64[Tensor, " k"] | None = None
    reachable: float | None = None
    total: float | None = None

    @property
    def second_moment(self) -> float:
        """`S_0 Q_0`, what CRS with one row has beside the mean's square."""
        return float((self.scores[:1] * self.ratios[:1]).sum())


@torch.no_grad()
def sweep_winners(
    layer: str,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    budgets: Sequence[int | float],
    *,
    captures: str = "",
    mask: Bool[Tensor, " n"] | None = None,
    stale: Float[Tensor, " n"] | None = None,
    scores: ScoreKind = "oracle",
    products: bool = True,
    fractions: Sequence[float] = (),
) -> list[WinnerSweep]:
    """Variance for |C| = 0 … k − 1 at every budget, with the rules' choices marked.

    O(n·d·m) time in all for any number of budgets; without `products` O(n·(d + m) + n log n). Beside x and dy memory is
    O(n + m·d + b·(d + m)) in fp64 for blocks of b = 1,024 rows: x and dy are never copied whole to fp64, unless they
    are fp64 already or their norms leave the range of single precision; the norms of bf16 rows take a copy in fp32.

    Args:
        layer: name for the result.
        x: input rows.
        dy: output gradients.
        budgets: fractions of rows (float) or numbers of rows (int), as in the estimators.
        captures: where the layer is from, for the result.
        mask: False at padding rows, which get score 0.
        stale: row norms of dY at an earlier state, for the scores "stale".
        scores: kind of scores.
        products: False leaves out ‖G_T‖²: an upper bound of the variance, and no best |C| (see `WinnerSweep`).
        fractions: of k, in [0, 1); these |C|, rounded down as in `wta_crs`, are always among those that are listed.

    Raises:
        ZeroProduct: if the exact product is zero; without `products`, if every pair is.
        InputError: on unusable input or budgets.
    """
    if not budgets:
        raise InputError("budgets=[] must name at least one budget")
    for budget in budgets:
        check_budget(budget, "sweep_winners")
    check_rows_agree(x, dy)
    n = x.shape[0]
    _check_finite(layer, x, dy)
    ranking = rank_rows(sampling_scores(x, layer_scores(scores, x, dy, mask, stale, layer=layer)))
    sizes = [rows_for(budget, n) for budget in budgets]
    sums = tail_sums(ranking, x, dy, max((k for k in sizes if k < n), default=0), products=products)
    unit = sums.second_moment if sums.total is None else sums.total
    if unit == 0.0:
        raise ZeroProduct(f"layer {layer!r}: the exact product is zero, nothing can be measured relative to it")
    return [
        _sweep(captures, layer, scores, budget, k, ranking, sums, unit, fractions)
        for budget, k in zip(budgets, sizes, strict=True)
    ]


def sweep_entry(
    path: Path,
    entry: str,
    budgets: Sequence[int | float],
    captures: str,
    scores: Sequence[ScoreKind],
    products: bool,
    device: str = "cpu",
) -> TaskOutput[WinnerSweep]:
    """`sweep_winners` of one entry of a captured file, for every kind of scores: one piece of a study.

    Raises:
        InputError: as `sweep_winners` and `load_captures`.
    """
    layer = on_device(load_captures(path)[entry], device)
    try:
        found = [
            sweep
            for kind in scores
            for sweep in sweep_winners(
                entry,
                layer.x,
                layer.dy,
                budgets,
                captures=captures,
                mask=layer.mask,
                stale=layer.stale,
                scores=kind,
                products=products,
            )
        ]
    except ZeroProduct as reason:
        return TaskOutput(skipped=str(reason))
    return TaskOutput(tuple(found))


def _check_finite(layer: str, x: Tensor, dy: Tensor) -> None:
    if not math.isfinite(float(pair_norms(x, dy).sum())):
        raise InputError(f"layer {layer!r}: x or dy holds NaN or infinite values")


def _sweep(
    captures: str,
    layer: str,
    scores: ScoreKind,
    budget: int | float,
    k: int,
    ranking: Ranking,
    sums: TailSums,
    unit: float,
    fractions: Sequence[float],
) -> WinnerSweep:
    variance = _variances(sums, ranking.order.shape[0], k) / unit
    paper, optimal = (_choice(ranking, k, rule) for rule in ("paper", "optimal"))
    best = None if sums.products is None else int(variance.argmin())
    fixed = [fixed_winners(fraction, k) for fraction in fractions]
    kept = thinned(k, [c for c in (paper, optimal, best, *fixed) if c is not None])
    return WinnerSweep(
        captures=captures,
        layer=layer,
        scores=scores,
        budget=budget,
        n=ranking.order.shape[0],
        k=k,
        products=sums.products is not None,
        winners=kept,
        variance=variance[torch.tensor(kept)].tolist(),
        paper=paper,
        optimal=optimal,
        best=best,
        crs=_crs(sums, k) / unit,
    )


def _choice(ranking: Ranking, k: int, rule: str) -> int:
    """A rule's |C|; all k slots for winners (an empty tail) is the same estimator as k − 1 and the last alone."""
    return min(int(winner_objective(ranking, k, rule).argmin()), k - 1)


def thinned(k: int, choices: Sequence[int], most: int = MOST_POINTS) -> list[int]:
    """At most `most` of the numbers 0 … k − 1, evenly spaced, both ends and the choices among them.

    >>> thinned(5, [2]), thinned(1000, [7, 500], most=6)
    ([0, 1, 2, 3, 4], [0, 7, 333, 500, 666, 999])
    """
    if k <= most:
        return list(range(k))
    spaces = most - 1 - len(choices)
    return sorted({i * (k - 1) // spaces for i in range(spaces + 1)} | set(choices))


def winner_variances(
    ranking: Ranking, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], k: int
) -> Float64[Tensor, " k"]:
    """Total variance of `wta_crs(budget=k, winners=c)` for c = 0 … k − 1, in fp64.

    Args:
        ranking: of checked scores (`rank_rows`).
        x: input rows in their own order.
        dy: output gradients.
        k: number of kept rows, 1 ≤ k ≤ n; k = n keeps every row and has no variance.
    """
    n = x.shape[0]
    return ranking.scores.new_zeros(k) if k == n else _variances(tail_sums(ranking, x, dy, k), n, k)


def tail_sums(
    ranking: Ranking, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], k: int, *, products: bool = True
) -> TailSums:
    """The sums that serve every budget up to k rows.

    Args:
        ranking: of checked scores (`rank_rows`).
        x: input rows in their own order.
        dy: output gradients.
        k: largest number of kept rows, 0 ≤ k < n.
        products: whether ‖G_c‖² is wanted, the O(n·d·m) part.
    """
    positive = ranking.scores > 0
    norms = _exact_pair_norms(x, dy)[ranking.order]
    ratios = torch.where(positive, norms.square() / torch.where(positive, ranking.scores, 1.0), 0.0)
    suffix = ratios.flip(0).cumsum(0).flip(0)
    if not products:
        return TailSums(ranking.remainder, suffix)
    squared, product = _tail_products(ranking, x, dy, k)
    reachable = float(product.square().sum())
    # rows of score 0 belong to no tail, but to G
    _add_rows(product, x, dy, ranking.order[~positive & (norms > 0)])
    return TailSums(ranking.remainder, suffix, squared, reachable, float(product.square().sum()))


def _exact_pair_norms(x: Tensor, dy: Tensor) -> Float64[Tensor, " n"]:
    """`w_i` with norms in fp64, which `pair_norms` has for fp64 input only: w² less ‖G_T‖² may nearly cancel."""
    rows = 8 * _BLOCK
    return torch.cat(
        [pair_norms(a.double(), b.double()) for a, b in zip(x.split(rows), dy.split(rows), strict=True)]
    )


def _variances(sums: TailSums, n: int, k: int) -> Float64[Tensor, " k"]:
    if k == n:
        return sums.ratios.new_zeros(k)
    variance = second_moment = sums.scores[:k] * sums.ratios[:k]
    if sums.products is not None:
        variance = second_moment - sums.products[:k]
    # a tail of one row has no variance, and its rounding must not pass for one
    variance = torch.where(variance > _ROUNDING * second_moment, variance, 0.0)
    return variance / (k - torch.arange(k, device=variance.device))


def _crs(sums: TailSums, k: int) -> float:
    """Plain CRS: no winners, every row of positive score in the tail; not exact at k = n."""
    return max(sums.second_moment - (sums.reachable or 0.0), 0.0) / k


def _tail_products(
    ranking: Ranking, x: Tensor, dy: Tensor, k: int
) -> tuple[Float64[Tensor, " k"], Float64[Tensor, "m d"]]:
    """`‖G_c‖²` for c = 0 … k − 1, and G_0."""
    product = x.new_zeros((dy.shape[1], x.shape[1]), dtype=torch.float64)
    _add_rows(product, x, dy, ranking.order[k:][ranking.scores[k:] > 0])
    weight = (ranking.scores[:k] > 0).double()
    squared = [weight[:0]]
    for start in reversed(range(0, k, _BLOCK)):
        block = slice(start, min(start + _BLOCK, k))
        rows = ranking.order[block]
        left, right = dy[rows].double() * weight[block].unsqueeze(1), x[rows].double()
        squared.append(_suffix_norms(product, left, right))
        product.addmm_(left.T, right)
    return torch.cat(squared[::-1]), product


def _add_rows(product: Float64[Tensor, "m d"], x: Tensor, dy: Tensor, rows: Int[Tensor, " r"]) -> None:
    """Add the pairs of these rows, a block at a time: only a block is ever held in fp64."""
    for some in rows.split(8 * _BLOCK):
        product.addmm_(dy[some].double().T, x[some].double())


def _suffix_norms(
    product: Float64[Tensor, "m d"], left: Float64[Tensor, "b m"], right: Float64[Tensor, "b d"]
) -> Float64[Tensor, " b"]:
    """`‖product + Σ_{i ≥ j} left_i right_iᵀ‖²` for every row j of the block."""
    overlap = ((left @ product) * right).sum(1)
    gram = (left @ left.T) * (right @ right.T)
    corner = gram.flip(0, 1).cumsum(0).cumsum(1).flip(0, 1).diagonal()
    return product.square().sum() + 2 * overlap.flip(0).cumsum(0).flip(0) + corner
