"""`exact`: keep everything; the reference every other estimator is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Estimator, Published, Traits
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree
from wtacrs.estimators.core.products import double_product, product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import joint_norms, sampling_scores
from wtacrs.estimators.core.stored_pairs import StoredRows


class SavedExact(NamedTuple):
    """The whole input, by reference: `n·d` numbers."""

    x: Float[Tensor, "n d"]


@register("exact")
@dataclass(frozen=True, repr=False)
class Exact(Estimator[SavedExact]):
    """The exact product `G = dYᵀ X`.

    Mean: `G`, and variance 0, since nothing is drawn. Bytes: those of `x`. MACs: `n·d·m`.

    >>> import torch
    >>> x, dy = torch.eye(3), torch.ones(3, 2)
    >>> Exact().contract(Exact().compress(x), dy)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """

    published: ClassVar[Published] = Published("definition", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="exact", unbiased=True, deterministic=True, uses_scores=False, exact_at_full_budget=True
    )

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SavedExact:
        """Keep `x` itself; scores are checked and then ignored."""
        del generator
        check_matrix("x", x)
        if scores is not None:
            sampling_scores(x, scores)
        return SavedExact(x)

    def contract(self, saved: SavedExact, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`dy.T @ x`."""
        check_rows_agree(saved.x, dy)
        dtype = product_dtype(saved.x, dy)
        return dy.to(dtype).T @ saved.x.to(dtype)

    def macs(self, n: int, d: int, m: int) -> int:
        """`n·d·m`."""
        return n * d * m

    def pair_slots(self, n: int) -> int:
        """One for every row (see `wtacrs.estimators.core.stored_pairs`, as for what follows)."""
        return n

    def slot_macs(self, d: int, m: int) -> int:
        """`d·m`."""
        return d * m

    def slot_norms(self, saved: SavedExact, dy: Float[Tensor, "n m"]) -> Float64[Tensor, " n"]:
        """`‖x_i‖‖y_i‖`."""
        return joint_norms(saved.x, dy)

    def variance_estimate(self, saved: SavedExact, dy: Float[Tensor, "n m"]) -> Float64[Tensor, ""]:
        """0."""
        return torch.zeros((), dtype=torch.float64, device=saved.x.device)

    def stored_rows(self, saved: SavedExact) -> StoredRows:
        """All rows."""
        return StoredRows(saved.x.double(), torch.arange(saved.x.shape[0], device=saved.x.device))

    def contract_slots(
        self, saved: SavedExact, dy: Float[Tensor, "n m"], slots: Int[Tensor, " s"], factors: Float[Tensor, " s"]
    ) -> Float[Tensor, "m d"]:
        """`Σ_s factors_s · y_i x_iᵀ`."""
        check_rows_agree(saved.x, dy)
        dtype = product_dtype(saved.x, dy)
        # factors reach n/k: fp16 rows times them could overflow although the product does not
        working = torch.float32 if dtype == torch.float16 else dtype
        weighted = dy.index_select(0, slots) * factors.to(working_dtype(dtype)).unsqueeze(1)
        return (weighted.to(working).T @ saved.x.index_select(0, slots).to(working)).to(dtype)

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """`dy.T @ x` in fp64."""
        check_rows_agree(x, dy)
        return double_product(x, dy)
