"""`control_variate`: a cheap exact part of the product, and any estimator for what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Shaped, UInt8
from torch import Tensor

from wtacrs.estimators.core.base import Estimator, Published, Traits, wrapping_saved
from wtacrs.estimators.core.checks import check_choice, check_length, check_matrix, check_rows_agree
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.packing import Packed, pack, pack_bits, unpack, unpack_bits
from wtacrs.estimators.core.products import double_product, product_dtype, working_dtype
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import gradient_proxies, row_norms, sampling_scores
from wtacrs.estimators.projections.subspace import principal_directions

BASES = ("mean", "lowrank", "mean+lowrank")
_ITERATIONS = 2  # what they miss is sampled
_ITERATIONS_FROM_OLD = 1
_COEFFICIENT_BITS = 8


class Base(NamedTuple):
    """What is kept exactly of x, as stored: on the rows of `mask`, `B_i = mean + basis · coefficients_i`."""

    mean: Float[Tensor, " d"]
    basis: Float[Tensor, "d r"]
    codes: UInt8[Tensor, "r n"]
    steps: Float[Tensor, "r 1"]
    mask: UInt8[Tensor, " bytes"]
    shape_carrier: Float[Tensor, "n 0"]  # no bytes: carries n and the dtype of x


@register("control_variate")
@dataclass(frozen=True, repr=False)
class ControlVariate(Estimator[Any]):
    """`X = B + R` with B cheap to store: `Ĝ = dYᵀ B + (estimate of dYᵀ R)`.

    The control variate of Monte Carlo integration (Hammersley & Handscomb, "Monte Carlo Methods", 1964, section
    5.5), for a product: what B explains has no variance.

    - `base="mean"`: `B = 1 μᵀ`, one row; `dYᵀ B = (Σ y_i) μᵀ`, and Σ y_i is the bias gradient.
    - `base="lowrank"`: `B = A Vᵀ` with orthonormal V `[d, rank]` and A `[n, rank]` in 8 bits.
    - `base="mean+lowrank"`: both, V for what the mean leaves.

    Mean and V weigh rows by the square of their proxy `score_i / ‖x_i‖` for ‖y_i‖, since it is Σ ‖y_i‖²‖R_i‖² that
    counts. V comes from two subspace iterations with a fixed start, or is given by the caller, who may keep one
    for many steps (`compress(…, basis=…)`, `BasisState`): the estimator itself has no state. R is what the
    *stored* B leaves, so that the rounding of A, V and μ is no error at all.

    Mean: B is a function of x and the scores, not of the draw. With an unbiased estimator of dYᵀ R, given B,
    `EĜ = dYᵀ B + dYᵀ R = G`. Variance: that of the inner estimator on R, `Var Ĝ = Var_rows(R, dY)`, with the
    scores ‖R_i‖ · proxy_i. Rows of score 0 are left out of B and of R.

    Bytes: those of the inner estimator, + 2d (mean), + rank·(2d + n + 2) (low rank), in bf16, + n/8 (which rows
    have a positive score). MACs: those of the inner one, + n·d (mean), + rank·(6 n·d + n·m + m·d)
    (low rank; 2 n·d if V is given): at rank m/6 the base alone costs more than the exact product.

    Args:
        rows: any estimator; if it is biased, so is the result.
        base: "mean", "lowrank" or "mean+lowrank".
        rank: columns of V; ignored for the mean alone.

    >>> import torch
    >>> from wtacrs.estimators import make
    >>> x, dy = torch.randn(64, 16) + 3.0, torch.randn(64, 4)
    >>> plain = make("crs(budget=0.25)")
    >>> better = make('control_variate(base="mean", rows=crs(budget=0.25))')
    >>> bool(better.variance(x, dy) < 0.2 * plain.variance(x, dy))
    True
    """

    rows: Estimator
    base: str = "mean+lowrank"
    rank: int = 8

    published: ClassVar[Published] = Published("Hammersley & Handscomb 1964", unbiased=True)
    traits: ClassVar[Traits] = Traits(
        family="composite", unbiased=True, deterministic=False, uses_scores=True, exact_at_full_budget=False
    )
    random_part: ClassVar[str | None] = "rows"

    def __post_init__(self) -> None:
        if not isinstance(self.rows, Estimator):
            raise InputError(f"control_variate: rows={self.rows!r} must be an estimator such as crs(budget=0.3)")
        check_choice("base", self.base, BASES, self.name)
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise InputError(f"control_variate: rank={self.rank!r} must be an int ≥ 1")
        if self.rows.saved_type is not None:
            _saved_type(self.rows.saved_type)

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
        basis: Float[Tensor, "d r"] | None = None,
    ) -> Any:
        """Store B and compress R; the result holds the tensors of both.

        Args:
            x: as in `Estimator.compress`.
            scores: as in `Estimator.compress`.
            generator: as in `Estimator.compress`.
            basis: V for a low-rank base, `[d, r]` with orthonormal columns; found from x if None. With any other
                columns B explains less, and the estimate is as unbiased.

        Raises:
            InputError: as `Estimator.compress`, or on a basis that does not fit x.
        """
        base, rest, rest_scores = self._split(x, scores, basis)
        inner = self.rows.compress(rest, scores=rest_scores, generator=generator)
        return _saved_type(type(inner))(*base, *inner)

    def contract(self, saved: Any, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`dYᵀ B` and the inner estimate."""
        base = Base(*saved[: len(Base._fields)])
        check_length(base.shape_carrier, dy)
        inner = self.rows.contract(type(saved).inner(*saved[len(Base._fields) :]), dy)
        return base_product(base, dy) + inner.to(product_dtype(base.shape_carrier, dy))

    def make_basis(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        start: Float[Tensor, "d s"] | None = None,
    ) -> Float[Tensor, "d r"]:
        """V for this x, to be kept by the caller and given to `compress` for some steps (see `BasisState`).

        Args:
            x: as in `Estimator.compress`.
            scores: as in `Estimator.compress`.
            start: an older basis, from which one subspace iteration is made in place of two from a fixed start.

        Raises:
            InputError: if the base has no basis, or `start` does not fit x.
        """
        check_matrix("x", x)
        x = x.detach()
        self.check_basis(start, x)
        proxy = _proxies(x, scores)
        x = torch.where(proxy[:, None] > 0, x, 0.0)
        return self._basis(_centred(x, self._mean(x, proxy), proxy > 0), proxy, start).to(x.dtype)

    def check_basis(self, basis: Float[Tensor, "d r"] | None, x: Float[Tensor, "n d"]) -> None:
        """Refuse a basis that does not fit x (None fits), and any if the base has none.

        Raises:
            InputError: naming the base, or the basis by its shape or device.
        """
        if self.base == "mean":
            raise InputError(f"{self!r}: a basis needs a low-rank base")
        if basis is None:
            return
        check_matrix("basis", basis)
        if basis.shape[0] != x.shape[1]:
            raise InputError(
                f"basis must have {x.shape[1]} rows, the features of x, got shape {list(basis.shape)}"
            )
        if basis.device != x.device:
            raise InputError(f"basis must be on the device of x ({x.device}), got {basis.device}")

    def macs(self, n: int, d: int, m: int) -> int:
        """Those of the inner estimator, and of the base with V found anew."""
        rank = 0 if self.base == "mean" else min(self.rank, n, d)
        mean = 0 if self.base == "lowrank" else n * d
        passes = 2 * _ITERATIONS + 2  # over x: to find V, for A, and for B
        return self.rows.macs(n, d, m) + mean + (passes * n * d + n * m + m * d) * rank

    def expectation(
        self,
        x: Float[Tensor, "n d"],
        dy: Float[Tensor, "n m"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        basis: Float[Tensor, "d r"] | None = None,
    ) -> Float64[Tensor, "m d"]:
        """`dYᵀ B` and the inner expectation; `basis` as in `compress`."""
        check_rows_agree(x, dy)
        base, rest, rest_scores = self._split(x, scores, basis)
        inner = self.rows.expectation(rest, dy, scores=rest_scores)
        return double_product(stored_base(base, torch.float64), dy) + inner

    def variance(
        self,
        x: Float[Tensor, "n d"],
        dy: Float[Tensor, "n m"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        basis: Float[Tensor, "d r"] | None = None,
    ) -> Float64[Tensor, ""]:
        """That of the inner estimator on R; `basis` as in `compress`.

        Raises:
            NoClosedForm: if the inner estimator has none.
        """
        check_rows_agree(x, dy)
        _, rest, rest_scores = self._split(x, scores, basis)
        return self.rows.variance(rest, dy, scores=rest_scores)

    def _split(
        self, x: Float[Tensor, "n d"], scores: Shaped[Tensor, " n"] | None, basis: Float[Tensor, "d r"] | None
    ) -> tuple[Base, Float[Tensor, "n d"], Float64[Tensor, " n"]]:
        """The stored base, R = X − B, and the scores of R."""
        check_matrix("x", x)
        proxy = _proxies(x, scores)
        mask = proxy > 0
        if basis is not None:
            self.check_basis(basis, x)
        x = torch.where(mask[:, None], x, 0.0)  # what is masked may hold anything
        mean = self._mean(x, proxy)
        if self.base == "mean":
            vectors = x.new_zeros((x.shape[1], 0))
        elif basis is None:
            vectors = self._basis(_centred(x, mean, mask), proxy).to(x.dtype)
        else:
            vectors = basis.to(x.dtype)
        coefficients = (_centred(x, mean, mask) @ vectors.to(working_dtype(x.dtype))).T.contiguous()
        codes, steps = pack(coefficients, _COEFFICIENT_BITS, None, torch.full_like(coefficients, 0.5))
        base = Base(mean, vectors, codes, steps, pack_bits(mask), x.new_empty((x.shape[0], 0)))
        rest = torch.where(
            mask[:, None], x.to(working_dtype(x.dtype)) - stored_base(base, working_dtype(x.dtype)), 0.0
        )
        return base, rest.to(x.dtype), row_norms(rest) * proxy

    def _mean(self, x: Float[Tensor, "n d"], proxy: Float64[Tensor, " n"]) -> Float[Tensor, " d"]:
        if self.base == "lowrank":
            return x.new_zeros(x.shape[1])
        weights = _weights(proxy, x)
        return (weights @ x.to(weights.dtype)).to(x.dtype)

    def _basis(
        self,
        centred: Float[Tensor, "n d"],
        proxy: Float64[Tensor, " n"],
        start: Float[Tensor, "d s"] | None = None,
    ) -> Float[Tensor, "d r"]:
        rank = min(self.rank, *centred.shape)
        if start is not None and start.shape[1] != rank:
            start = None  # found for fewer rows, or by an estimator of another rank
        iterations = _ITERATIONS if start is None else _ITERATIONS_FROM_OLD
        return principal_directions(centred, _weights(proxy, centred), rank, iterations=iterations, start=start)


def base_product(base: Base, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
    """`dYᵀ B` from the stored base, without forming B."""
    dtype = product_dtype(base.shape_carrier, dy)
    working = torch.float32 if dtype == torch.float16 else dtype
    dy = dy.to(working) * unpack_bits(base.mask, base.shape_carrier.shape[0]).to(working)[:, None]
    product = torch.outer(dy.sum(0), base.mean.to(working))
    if base.basis.shape[1]:
        product = product + (dy.T @ _coefficients(base, working)) @ base.basis.to(working).T
    return product.to(dtype)


def stored_base(base: Base, dtype: torch.dtype) -> Float[Tensor, "n d"]:
    """B itself, from the stored base."""
    whole = base.mean.to(dtype) + _coefficients(base, dtype) @ base.basis.to(dtype).T
    return whole * unpack_bits(base.mask, base.shape_carrier.shape[0])[:, None].to(dtype)


def _coefficients(base: Base, dtype: torch.dtype) -> Float[Tensor, "n r"]:
    return unpack(Packed(base.codes, base.steps), base.shape_carrier.shape[0], _COEFFICIENT_BITS, None, dtype).T


def _proxies(x: Float[Tensor, "n d"], scores: Shaped[Tensor, " n"] | None) -> Float64[Tensor, " n"]:
    """`score_i / ‖x_i‖`, a stand-in for ‖y_i‖ up to a factor; 1 without scores, 0 where the score is 0."""
    if scores is None:
        sampling_scores(x)  # refuses NaN
        return torch.ones(x.shape[0], dtype=torch.float64, device=x.device)
    checked = sampling_scores(x, scores)
    return gradient_proxies(row_norms(torch.where(checked[:, None] > 0, x, 0.0)), checked)


def _weights(proxy: Float64[Tensor, " n"], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Squared proxies, adding up to 1."""
    largest = proxy.amax() if proxy.numel() else proxy.sum()
    squares = (proxy / torch.where(largest > 0, largest, 1.0)).square()
    return (squares / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)).to(working_dtype(x.dtype))


def _centred(x: Float[Tensor, "n d"], mean: Float[Tensor, " d"], mask: Bool[Tensor, " n"]) -> Float[Tensor, "n d"]:
    working = working_dtype(x.dtype)
    return torch.where(mask[:, None], x.to(working) - mean.to(working), 0.0)


def _saved_type(inner: Any) -> Any:
    """A NamedTuple of the base's tensors and those of the inner estimator's `Saved`."""
    fields = (*Base._fields, *(f"inner_{name}" for name in inner._fields))
    return wrapping_saved("SavedControlVariate", fields, inner)
