"""Exact variance of WTA-CRS on one layer for every number of winners, with one sort and suffix sums.

With rows in order of falling score, T the ranks ≥ c of positive score, `S_c = Σ_T s`, `Q_c = Σ_T w²/s` and
`G_c = Σ_T Z`, the variance with c winners is `(S_c Q_c − ‖G_c‖²) / (k − c)`. `S` and `Q` are suffix sums. `‖G_c‖²`
grows by one pair at a time, `‖G + Z‖² = ‖G‖² + 2⟨G, Z⟩ + ‖Z‖²`, done for a block of rows at once.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from wtacrs.estimators import make, rows_for, sampling_scores
from wtacrs.estimators.budget import check_budget
from wtacrs.estimators.ranking import Ranking, rank_rows
from wtacrs.estimators.rows import pair_norms
from wtacrs.estimators.wta_crs import winner_objective
from wtacrs.validation.comparison import exact_product
from wtacrs.validation.results import WinnerSweep
from wtacrs.validation.score_kinds import ScoreKind, layer_scores

_BLOCK = 128


@torch.no_grad()
def sweep_winners(
    layer: str,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    budget: int | float,
    *,
    mask: Bool[Tensor, " n"] | None = None,
    stale: Float[Tensor, " n"] | None = None,
    scores: ScoreKind = "oracle",
) -> WinnerSweep:
    """Variance relative to ‖G‖² for |C| = 0 … k − 1, with the rules' choices marked.

    O(n·d·m) time, O(d·m + n·max(d, m)) memory.

    Args:
        layer: name for the result.
        x: input rows.
        dy: output gradients.
        budget: fraction of rows (float) or number of rows (int), as in the estimators.
        mask: False at padding rows, which get score 0.
        stale: row norms of dY at an earlier state, for the scores "stale".
        scores: kind of scores.

    Raises:
        ZeroProduct: if the exact product is zero.
        InputError: on unusable input or budget.
    """
    check_budget(budget, "sweep_winners")
    unit = float(exact_product(layer, x, dy).square().sum())
    ready = sampling_scores(x, layer_scores(scores, x, dy, mask, stale, layer=layer))
    n = x.shape[0]
    k = rows_for(budget, n)
    ranking = rank_rows(ready)
    variance = winner_variances(ranking, x, dy, k) / unit
    crs = make("crs", budget=k)
    return WinnerSweep(
        layer=layer,
        scores=scores,
        n=n,
        k=k,
        variance=variance.tolist(),
        paper=_choice(ranking, k, "paper"),
        optimal=_choice(ranking, k, "optimal"),
        best=int(variance.argmin()),
        crs=float(crs.variance(x, dy, scores=ready)) / unit,
    )


def _choice(ranking: Ranking, k: int, rule: str) -> int:
    """A rule's |C|; all k slots for winners (an empty tail) is the same estimator as k − 1 and the last alone."""
    return min(int(winner_objective(ranking, k, rule).argmin()), k - 1)


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
    if k == n:
        return ranking.scores.new_zeros(k)
    positive = ranking.scores > 0
    squares = pair_norms(x, dy)[ranking.order].square()
    ratios = torch.where(positive, squares / torch.where(positive, ranking.scores, 1.0), 0.0)
    second_moment = ranking.remainder[:k] * ratios.flip(0).cumsum(0).flip(0)[:k]
    draws = k - torch.arange(k, device=x.device)
    spread = (second_moment - _tail_products(ranking, x, dy, k)) / draws
    return spread.clamp(min=0.0)


def _tail_products(ranking: Ranking, x: Tensor, dy: Tensor, k: int) -> Float64[Tensor, " k"]:
    """`‖G_c‖²` for c = 0 … k − 1."""
    rest = ranking.order[k:][ranking.scores[k:] > 0]
    product = x.new_zeros((dy.shape[1], x.shape[1]), dtype=torch.float64)
    for rows in rest.split(8 * _BLOCK):
        product += dy[rows].double().T @ x[rows].double()
    weight = (ranking.scores[:k] > 0).double()
    squared = []
    for start in reversed(range(0, k, _BLOCK)):
        block = slice(start, min(start + _BLOCK, k))
        rows = ranking.order[block]
        left, right = dy[rows].double() * weight[block].unsqueeze(1), x[rows].double()
        squared.append(_suffix_norms(product, left, right))
        product += left.T @ right
    return torch.cat(squared[::-1])


def _suffix_norms(
    product: Float64[Tensor, "m d"], left: Float64[Tensor, "b m"], right: Float64[Tensor, "b d"]
) -> Float64[Tensor, " b"]:
    """`‖product + Σ_{i ≥ j} left_i right_iᵀ‖²` for every row j of the block."""
    overlap = ((left @ product) * right).sum(1)
    gram = (left @ left.T) * (right @ right.T)
    corner = gram.flip(0, 1).cumsum(0).cumsum(1).flip(0, 1).diagonal()
    return product.square().sum() + 2 * overlap.flip(0).cumsum(0).flip(0) + corner
