"""`StoredPairs`: an estimate that is a sum of pairs, `Ĝ = A + Σ_j y_(i_j) r_jᵀ` over the slots of what is stored.

r_j is the stored row of slot j with its weight, decoded where it is in few bits; A is the part that needs no rows, such
as that of an exact mean. Whoever knows dY can then add up some of the pairs in place of all (see `subsampled`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Float64, Int
from torch import Tensor


class StoredRows(NamedTuple):
    """What the slots hold.

    Attributes:
        rows: r_j with their weights, in fp64; 0 in a slot that is not used.
        indices: i_j, the row of dY that belongs to each.
    """

    rows: Float64[Tensor, "k d"]
    indices: Int[Tensor, " k"]


@runtime_checkable
class StoredPairs(Protocol):
    """What an estimator says of its slots; k is their number, a function of the number of rows alone."""

    def pair_slots(self, n: int) -> int:
        """k for n rows."""

    def slot_macs(self, d: int, m: int) -> int:
        """Multiply–accumulates that a slot takes in the product."""

    def slot_norms(self, saved: Any, dy: Float[Tensor, "n m"]) -> Float64[Tensor, " k"]:
        """`‖r_j‖‖y_(i_j)‖`, or something near it that is 0 exactly where this is.

        Raises:
            InputError: if `dy` does not have as many rows as the compressed x.
        """

    def variance_estimate(self, saved: Any, dy: Float[Tensor, "n m"]) -> Float64[Tensor, ""]:
        """An estimate of the variance of `contract` from what is stored, without the covariances between pairs.

        Where what is stored does not tell, too small rather than too large.
        """

    def stored_rows(self, saved: Any) -> StoredRows:
        """All slots in double precision: for moments."""

    def contract_slots(
        self, saved: Any, dy: Float[Tensor, "n m"], slots: Int[Tensor, " s"], factors: Float[Tensor, " s"]
    ) -> Float[Tensor, "m d"]:
        """`A + Σ_s factors_s · y_(i_j) r_jᵀ`, j = slots_s; with all slots and the factors 1 what `contract` returns.

        Args:
            saved: what `compress` returned.
            dy: as in `contract`.
            slots: some of 0 … k − 1.
            factors: one for each of them.
        """
