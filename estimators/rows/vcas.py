"""`vcas`: all of x is kept, and every row decides for itself whether it is multiplied, once dY is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_length, check_rows_agree
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.estimators.core.products import double_product, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import has_values, joint_norms, sampling_scores
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.core.sourced import RandomChoices, RegeneratingEstimator
from wtacrs.estimators.rows.inclusion import inclusion
from wtacrs.estimators.rows.row_estimator import pair_norms, weighted_product

_KEYS = 0  # stream of the seed


class SavedInput(NamedTuple):
    """The whole input, by reference, and 8 bytes."""

    x: Float[Tensor, "n d"]
    seed: Int64[Tensor, " 1"]


@register("vcas")
@dataclass(frozen=True, repr=False)
class VCAS(RegeneratingEstimator[SavedInput]):
    """Poisson sampling of the pairs in the backward pass: `Ĝ = Σ_i I_i/π_i · y_i x_iᵀ`, with both norms known.

    `π_i = min(1, w_i/τ)`, `w_i = ‖x_i‖‖y_i‖` and Σ π = k, as in `wtacrs.estimators.rows.inclusion`; I_i is 1 with
    probability π_i, independently of all others. Pairs of norm 0 are never drawn. It saves products, not bytes.

    Source: Wang, Chen & Zhu, "Efficient Backpropagation with Variance Controlled Adaptive Sampling", ICLR 2024 (arXiv
    2402.17227), the sampling of its weight gradients, where w_i is called the leverage score of the row; k is a constant
    here and follows the variance over the steps there. The sampling of whole examples on the way of dX is not part of an
    estimate of dW. The statistical leverage of a row, `x_iᵀ (XᵀX)⁺ x_i`, is another quantity: it knows nothing of dY and
    can be passed as scores to any row design. `bernoulli` is this design in the forward pass, by scores.

    Mean: π depends on x and dY alone, and `E I_i/π_i = 1` wherever w_i > 0; elsewhere the pair is 0. So `EĜ = G`, of all
    rows: scores are not looked at. The estimate is not linear in dY, since π depends on it. A dY that is not finite gives
    NaN.

    Variance: coefficients are independent, with `Var(I_i/π_i) = 1/π_i − 1`, hence

        Var Ĝ = Σ_i (1/π_i − 1) w_i².

    With T the rows with π < 1 and c the others it is `(Σ_T w)²/(k − c) − Σ_T w²`, the least of all independent draws of k
    rows in the mean.

    Bytes: those of x, and 8. MACs: that of the rows drawn, k·d·m in the mean; where their number is not known
    without waiting for a device, and in what is compiled, rows that are not drawn are multiplied by 0.

    Args:
        rows: float in (0, 1], the mean fraction of rows that are multiplied, or int ≥ 1, their mean number.

    >>> import torch
    >>> x, dy = torch.eye(3), torch.tensor([[8.0], [1.0], [1.0]])
    >>> estimator = VCAS(rows=2)  # π = (1, ½, ½)
    >>> float(estimator.variance(x, dy))
    2.0
    """

    rows: int | float = 0.5

    published: ClassVar[Published] = Published("Wang, Chen & Zhu 2024, arXiv 2402.17227", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="rows",
        unbiased=True,
        deterministic=False,
        uses_scores=False,
        exact_at_full_budget=False,
        linear_in_dy=False,
    )

    def __post_init__(self) -> None:
        number = isinstance(self.rows, (int, float)) and not isinstance(self.rows, bool)
        if not number or not (self.rows >= 1 if isinstance(self.rows, int) else 0.0 < self.rows <= 1.0):
            raise InputError(
                f"vcas: rows={self.rows!r} must be a float in (0, 1] (mean fraction of the rows) or an int ≥ 1 (mean "
                "number of rows)"
            )

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedInput:
        """x itself and a seed."""
        return SavedInput(x, source.seeded()[0])

    def finish(self, saved: SavedInput, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """Draw the rows and multiply them."""
        check_length(saved.x, dy)
        norms = joint_norms(saved.x, dy)
        if not norms.shape[0]:
            return weighted_product(saved.x, torch.arange(0, device=dy.device), norms, dy)
        finite = norms.amax().isfinite()
        chances = self._chances(torch.where(finite, norms, 1.0))
        counters = torch.arange(norms.shape[0], device=norms.device)
        included = (chances + source.uniforms(_KEYS, counters, lambda: chances)).floor().clamp(max=1.0)
        weights = torch.where(finite, included / torch.where(chances > 0, chances, 1.0), torch.nan)
        rows = (weights != 0).nonzero().squeeze(1) if has_values(weights) else counters
        weights = weights.index_select(0, rows).to(working_dtype(saved.x.dtype))
        return weighted_product(saved.x.index_select(0, rows), rows, weights, dy)

    def macs(self, n: int, d: int, m: int) -> int:
        """The number of rows is random.

        Raises:
            NoClosedForm: always.
        """
        raise NoClosedForm(
            f"{self!r}: how many rows are multiplied is drawn, {rows_for(self.rows, n)} in the mean"
        )

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ X` in fp64; scores are checked and then ignored."""
        check_rows_agree(x, dy)
        sampling_scores(x, scores)
        return double_product(x, dy)

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """`Σ_i (1/π_i − 1) w_i²`; scores are checked and then ignored."""
        check_rows_agree(x, dy)
        sampling_scores(x, scores)
        norms = pair_norms(x, dy)
        chances = self._chances(norms)
        excess = torch.where(chances > 0, 1.0 / torch.where(chances > 0, chances, 1.0) - 1.0, 0.0)
        return (excess * norms.square()).sum()

    def _chances(self, norms: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """π of every row."""
        if not norms.shape[0]:
            return norms
        largest = norms.amax()
        relative = norms / torch.where(largest > 0, largest, 1.0)
        return inclusion(relative, rows_for(self.rows, norms.shape[0])).probabilities
