"""`pamm`: every row is replaced by its projection on the nearest of a few random rows; biased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published, Traits
from wtacrs.estimators.core.checks import check_length, check_rows_agree
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.estimators.core.products import product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import row_norms, sampling_scores
from wtacrs.estimators.core.seeded import BLOCK, SeededEstimator, mask_rows
from wtacrs.estimators.core.sizing import check_budget, rows_for
from wtacrs.estimators.core.sourced import RandomChoices

_CHOICE = 0


class SavedPoints(NamedTuple):
    """What is kept of `x [n, d]`: k rows in the dtype of x, and 8 bytes (fp64: 12) for every one of the n rows."""

    points: Float[Tensor, "k d"]
    assignment: Int[Tensor, " n"]
    factors: Float[Tensor, " n"]


@register("pamm")
@dataclass(frozen=True, repr=False)
class PAMM(SeededEstimator[SavedPoints]):
    """PAMM-style: `x̃_i = α_i c`, the projection of x_i on the one of k random rows with the largest |cos(x_i, c)|.

    `Ĝ = β dYᵀ X̃ = β Σ_j (Σ_(i at j) α_i y_i) c_jᵀ`: the rows of dY are gathered at their representatives first. A
    row for which `‖x_i − x̃_i‖² > tolerance · ‖x_i‖²` is dropped (α_i = 0), and β is the number of rows over the
    number of those not dropped. The representatives are k distinct rows, every choice equally likely; a tie in the
    cosine goes to the earlier row. Rows of score 0 are neither represented nor representatives.

    Source: Khalaf, Shamshoum, Hodos, Sieradzki & Schuster, "QKV Projections Require a Fraction of Their Memory",
    2025 (arXiv 2506.02939).

    Bias: a projection on a line loses what is orthogonal to it, on average too. With tolerance 1 the mean is
    known: rank the n rows by |cos| to x_i, x_i itself first; the one at rank t represents x_i if it is chosen and
    the t − 1 before it are not, with probability `p_t = C(n − t, k − 1)/C(n, k)`. So `EĜ = dYᵀ X̄` with
    `x̄_i = Σ_t p_t · (projection of x_i on the row at rank t)`. With a smaller tolerance β depends on the draw as
    well, and no closed form is known. Nor for the variance: it needs the joint law of two representatives, a sum
    over quadruples of rows.

    Bytes: k rows + 8n (fp64: 12n). MACs: `n·k·d` for the cosines, `k·d·m` for the product, beside one
    pass over dY. On CUDA the order of the additions is not fixed: two runs may differ by rounding.

    Args:
        budget: float in (0, 1], the representatives as a fraction of n, or int ≥ 1, their number.
        tolerance: in (0, 1], largest relative squared error of a row that is not dropped.

    >>> import torch
    >>> x, dy = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-4.0, 0.0]]), torch.ones(3, 1)
    >>> PAMM(budget=1).contract(PAMM(budget=1).compress(x), dy)  # rows on one line: any of them stands for all
    tensor([[-1.,  0.]])
    """

    budget: int | float
    tolerance: float = 1.0

    published: ClassVar[Published] = Published("Khalaf et al. 2025, arXiv 2506.02939", unbiased=False)
    traits: ClassVar[Traits] = Traits(
        family="rows",
        unbiased=False,
        deterministic=False,
        uses_scores=False,
        exact_at_full_budget=True,
        uses_support=True,
    )

    def __post_init__(self) -> None:
        check_budget(self.budget, self.name)
        number = isinstance(self.tolerance, (int, float)) and not isinstance(self.tolerance, bool)
        if not number or not 0.0 < self.tolerance <= 1.0:
            raise InputError(f"pamm: tolerance={self.tolerance!r} must be a number in (0, 1]")

    def keep(self, x: Float[Tensor, "n d"], scores: Float64[Tensor, " n"], source: RandomChoices) -> SavedPoints:
        """Choose representatives, then assign and scale every row."""
        x, support = x.detach(), scores > 0
        _, numbers = source.seeded()
        n = x.shape[0]
        chosen = numbers.subset(_CHOICE, support, rows_for(self.budget, n))
        x = mask_rows(x, support)
        units, norms = _units(x)
        place, cosine = _nearest(units, chosen)
        norm = norms[chosen][place]
        factor = torch.where(norm > 0, cosine * norms / torch.where(norm > 0, norm, 1.0), 0.0)
        # the error of a projection is 1 − cos² of the squared norm
        near = (1.0 - cosine.square() <= self.tolerance) & support
        factor = torch.where(near, factor, 0.0) * (support.sum() / near.sum().clamp(min=1))
        return SavedPoints(x[chosen], place.to(torch.int32), factor.to(working_dtype(x.dtype)))

    def contract(self, saved: SavedPoints, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """Gather the rows of dY at the representatives, then multiply (see `Estimator.contract`)."""
        check_length(saved.assignment, dy)
        dtype = product_dtype(saved.points, dy)
        working = working_dtype(dtype)
        scaled = dy.to(working) * saved.factors.to(working).unsqueeze(1)
        gathered = scaled.new_zeros((saved.points.shape[0], dy.shape[1])).index_add(0, saved.assignment, scaled)
        return (gathered.T @ saved.points.to(working)).to(dtype)

    def finish(self, saved: SavedPoints, dy: Float[Tensor, "n m"], source: Source) -> Float[Tensor, "m d"]:
        """`contract`: nothing is drawn in it."""
        return self.contract(saved, dy)

    def macs(self, n: int, d: int, m: int) -> int:
        """`n·k·d` for the cosines, `k·d·m` for the product."""
        return rows_for(self.budget, n) * d * (n + m)

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ X̄` over the rows of positive score, O(n² d) time.

        Raises:
            NoClosedForm: with a tolerance below 1.
        """
        if self.tolerance < 1.0:
            raise NoClosedForm(f"{self!r}: the factor β depends on the draw; use enumeration or Monte Carlo")
        check_rows_agree(x, dy)
        support = sampling_scores(x, scores) > 0
        units, norms = _units(mask_rows(x.double(), support))
        cosine = units @ units.T
        # rows that cannot represent come last, with probability 0
        order = torch.where(support, cosine.abs(), -1.0).argsort(dim=1, descending=True, stable=True)
        weights = cosine * torch.zeros_like(cosine).scatter(1, order, self._ranked(support).expand_as(order))
        return (mask_rows(dy.double(), support) * norms.unsqueeze(1)).T @ (weights @ units)

    def _ranked(self, support: Bool[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """The probability that the row at rank t is chosen and none of those before it."""
        n = support.shape[0]
        rows = support.sum()
        k = rows.clamp(max=rows_for(self.budget, n))
        before = torch.arange(n, dtype=torch.float64, device=support.device)
        # given that none of the first t is chosen, the next one is with probability k/(rows − t)
        here = (k / (rows - before).clamp(min=1)).clamp(max=1.0)
        return torch.where(before < rows, here * torch.cat([here.new_ones(1), (1 - here).cumprod(0)])[:n], 0.0)


def _units(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float64[Tensor, " n"]]:
    """Rows of length 1 (a zero row stays zero) and their lengths."""
    norms = row_norms(x)
    working = x.to(working_dtype(x.dtype))
    return working / torch.where(norms > 0, norms, 1.0).to(working.dtype).unsqueeze(1), norms


def _nearest(
    units: Float[Tensor, "n d"], chosen: Int64[Tensor, " k"]
) -> tuple[Int64[Tensor, " n"], Float64[Tensor, " n"]]:
    """For every row the representative of largest |cosine|, and the cosine; a block of rows at a time."""
    n, k = units.shape[0], chosen.shape[0]
    places, cosines = [chosen[:0]], [units.new_zeros(0)]
    step = max(BLOCK // max(k, 1), 1)
    for start in range(0, n, step):
        cosine = units[start : start + step] @ units[chosen].T
        place = cosine.abs().argmax(dim=1)
        places.append(place)
        cosines.append(cosine.gather(1, place.unsqueeze(1)).squeeze(1))
    return torch.cat(places), torch.cat(cosines).double()
