"""`actnn`: every row in 2, 4 or 8 bits between the least and the largest number of a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from wtacrs.estimators.core.base import Published
from wtacrs.estimators.core.checks import check_length
from wtacrs.estimators.core.packing import (
    check_bits,
    from_bytes,
    grouped,
    round_down,
    round_up,
    spread_steps,
    to_bytes,
)
from wtacrs.estimators.core.products import product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.rounding.rounding_estimator import RoundingEstimator


class SavedGroups(NamedTuple):
    """n packed rows, and 4 bytes (fp64: 16) for the least level and the step of every group."""

    codes: UInt8[Tensor, "n bytes"]
    least: Float[Tensor, "n groups"]
    steps: Float[Tensor, "n groups"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carry n, d and the dtype of x
    columns: Float[Tensor, "d 0"]


@register("actnn")
@dataclass(frozen=True, repr=False)
class ActNN(RoundingEstimator[SavedGroups]):
    """Per-group stochastic rounding: `Ĝ = dYᵀ Q(X)`, with levels from the least to the largest number of a group.

    A group has the least level z, the step Δ and the levels `z + qΔ`, q = 0 … L with L = 2^bits − 1. With the place
    `p = (x − z)/Δ` and u uniform on [0, 1), the code is `q = ⌊p + u⌋`, and `Q(x) = z + qΔ`.

    Source: Chen, Zheng, Yao, Wang, Stoica, Mahoney & Gonzalez, "ActNN: Reducing Training Memory Footprint via 2-Bit
    Activation Compressed Training", ICML 2021 (arXiv 2104.14129), with groups of 256 numbers. There z is the
    least number of the group and Δ a share 1/L of its range; both are used as they are to find q, and are rounded to the
    nearest bf16 numbers z' and Δ' after that. What is read is `z' + qΔ'`, with the mean `z' + (x − z) Δ'/Δ`: the bias
    `(z' − z) + (x − z)(Δ'/Δ − 1)` is up to 2⁻⁹ of |z| and of x − z, alike for all numbers of a group and the same in
    every step for the same x. So the published form is unbiased with z and Δ in full precision, and biased as it is
    stored. Here z is rounded down and Δ up, before q is found, so that the levels that are read are those that q was
    found with and reach from below the least to above the largest number.

    Mean: with stored levels 0 ≤ p ≤ L, q is ⌊p⌋ or ⌊p⌋ + 1, the latter with probability f, the fractional part of p.
    So `E Q(x) = z + pΔ = x`, and `EĜ = G`. Numbers beyond the largest of bf16 are read as that one.

    Variance: the errors of different numbers are independent, with variance Δ² f (1 − f) ≤ Δ²/4, hence

        Var Ĝ = Σ_i ‖y_i‖² Σ_j Δ² f_ij (1 − f_ij),      L Δ ≤ (1 + 2⁻⁷)(max − min + 2⁻⁷ |min|).

    The term in |min| is the price of z in bf16: it is felt where a group lies far from 0, beside its range.

    Bytes: n·(bits·d/8 + 4 per group). MACs: `n·d·m`, as exact, beside the unpacking.

    Args:
        bits: 2, 4 or 8.
        group: neighbouring numbers of a row that share z and Δ; None for a whole row.

    >>> import torch
    >>> from wtacrs.estimators import saved_bytes
    >>> x = torch.tensor([[1.0, 1.0, 4.0, 2.0]])  # z = 1, Δ = 1: every number is a level
    >>> ActNN().contract(ActNN().compress(x), torch.ones(1, 1)), saved_bytes(ActNN().compress(torch.ones(10, 512)))
    (tensor([[1., 1., 4., 2.]]), 1360)
    """

    bits: int = 2
    group: int | None = 256

    published: ClassVar[Published] = Published(
        "Chen et al. 2021, arXiv 2104.14129",
        unbiased=False,
        note="there the least level and the step are rounded to bf16 after the codes are found, here before",
    )

    def __post_init__(self) -> None:
        check_bits(self.bits, self.group, self.name)

    def rounded(self, x: Float[Tensor, "n d"], uniforms: Float[Tensor, "n d"]) -> SavedGroups:
        """Find the levels, round and pack."""
        least, steps = self.levels(x)
        codes = (self._places(x, least, steps) + uniforms).floor().clamp(0, self._top)
        packed = to_bytes(codes.to(torch.uint8), self.bits)
        return SavedGroups(packed, least, steps, x.new_empty((x.shape[0], 0)), x.new_empty((x.shape[1], 0)))

    def contract(self, saved: SavedGroups, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`dYᵀ Q(X)`."""
        check_length(saved.shape_carrier, dy)
        dtype = product_dtype(saved.columns, dy)
        working, d = working_dtype(dtype), saved.columns.shape[0]
        # a range can exceed the largest number: half of it does not, and halves are exact
        half_least, half_step = (0.5 * self._spread(a, d).to(working) for a in (saved.least, saved.steps))
        codes = from_bytes(saved.codes, self.bits)[:, :d].to(working)
        return dy.to(dtype).T @ (2.0 * torch.addcmul(half_least, codes, half_step)).to(dtype)

    def places(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Places among the levels."""
        return self._places(x, *self.levels(x))

    def errors(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """`Σ_j Δ² f_ij (1 − f_ij)`."""
        least, steps = self.levels(x)
        place = self._places(x.double(), least.double(), steps.double())
        fraction = place - place.floor()
        return (self._spread(steps, x.shape[1]).double().square() * fraction * (1 - fraction)).sum(1)

    def levels(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n groups"], Float[Tensor, "n groups"]]:
        """z and Δ of every group, in bf16, rounded down and up; in fp64 beside fp64 numbers."""
        precise = x.dtype == torch.float64
        n, d = x.shape
        if not n * d:
            shape = grouped(x, self.group).shape[:2]
            empty = x.new_zeros(shape, dtype=torch.float64 if precise else torch.bfloat16)
            return empty, empty.clone()
        groups = grouped(_filled(x.to(working_dtype(x.dtype)), self.group), self.group)
        smallest, largest = groups.amin(2), groups.amax(2)
        least = smallest if precise else round_down(smallest)
        steps = (0.5 * largest - 0.5 * least.to(largest.dtype)).clamp(min=0.0) * (2.0 / self._top)
        return least, steps if precise else round_up(steps)

    @property
    def _top(self) -> int:
        return int(2**self.bits - 1)

    def _places(
        self, x: Float[Tensor, "n d"], least: Float[Tensor, "n groups"], steps: Float[Tensor, "n groups"]
    ) -> Float[Tensor, "n d"]:
        """Where the numbers lie among the levels 0 … L; at the first one where the step is 0."""
        working, d = working_dtype(x.dtype), x.shape[1]
        least, step = (self._spread(a, d).to(working) for a in (least, steps))
        return (0.5 * x.to(working) - 0.5 * least) / torch.where(step > 0, 0.5 * step, 1.0)

    def _spread(self, of_groups: Float[Tensor, "n groups"], columns: int) -> Float[Tensor, "n d"]:
        return spread_steps(of_groups, columns, self.group)


def _filled(x: Float[Tensor, "n d"], group: int | None) -> Float[Tensor, "n d2"]:
    """Rows whose last group is filled up with its last number, which is neither a new least nor a new largest one."""
    short = 0 if group is None else -x.shape[1] % group
    return torch.cat([x, x[:, -1:].expand(-1, short)], dim=1)
