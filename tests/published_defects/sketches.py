"""Random projections of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from published_defects.arithmetic import kept
from published_defects.pieces import ADVANCES, EQUAL, HEAVY, VARIANCE, defect, sound
from wtacrs.estimators import Estimator, Traits, sampling_scores
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree


def cosine_transform(rows: Tensor) -> Tensor:
    """Orthonormal DCT-II along the first axis, by the FFT of the mirrored rows."""
    n = len(rows)
    mirrored = torch.fft.rfft(torch.cat([rows, rows.flip(0)]), dim=0)[:n]
    turn = torch.exp(-0.5j * torch.pi * torch.arange(n) / n).unsqueeze(1)
    scale = torch.full((n, 1), 0.5 * (2.0 / n) ** 0.5)
    scale[0] = 0.5 / n**0.5
    return ((mirrored * turn).real * scale).to(rows.dtype)


@sound("random signs, cosine transform, k distinct coefficients, n/k")
def cosine_sketch(x: Tensor, dy: Tensor, k: int) -> Tensor:
    n = len(x)
    signs = (2 * torch.randint(2, (n, 1)) - 1).to(x.dtype)
    rows = torch.randperm(n)[:k]
    sketch_x, sketch_y = cosine_transform(signs * x)[rows], cosine_transform(signs * dy)[rows]
    return sketch_y.T @ sketch_x * (n / k)


# k = ⌊0.3 · 512⌋ = 153
@defect(EQUAL, "multiplies by k where it should divide", bias=153.0**2 - 1.0)
def cosine_sketch_off_by_k_squared(x: Tensor, dy: Tensor, k: int) -> Tensor:
    return cosine_sketch(x, dy, k) * k**2


@defect(EQUAL, "k orthonormal rows are not scaled by n/k, as if they were normal entries: E Ĝ = (k/n) G", bias=0.7)
def orthonormal_sketch_unscaled(x: Tensor, dy: Tensor, k: int) -> Tensor:
    return cosine_sketch(x, dy, k) * (k / len(x)) if len(x) else dy.T @ x


@defect(HEAVY, "the same signs multiply x alone, so that rows do not meet themselves: E Ĝ = 0", bias=1.0)
def signs_on_one_factor(x: Tensor, dy: Tensor) -> Tensor:
    signs = (2 * torch.randint(2, (len(x), 1)) - 1).to(x.dtype)
    return dy.T @ (signs * x)


# drawn once, when the module is imported
_TABLE = torch.Generator().manual_seed(7)
_SIGNS = 2.0 * torch.randint(2, (1 << 14,), generator=_TABLE) - 1.0
_BUCKETS = torch.rand(1 << 14, generator=_TABLE)


def bucketed(rows: Tensor) -> Tensor:
    """Sums of signed rows in k buckets."""
    n, k = len(rows), kept(len(rows))
    signed = rows * _SIGNS[:n].to(rows.dtype).unsqueeze(1)
    return rows.new_zeros(k, rows.shape[1]).index_add(0, (_BUCKETS[:n] * k).long(), signed)


class _SignsOfTheImport(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(bucketed(x.reshape(-1, x.shape[-1])), weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        sketch, weight = ctx.saved_tensors
        flat = dy.reshape(-1, dy.shape[-1])
        return dy @ weight, bucketed(flat).T @ sketch, flat.sum(0)


@defect(ADVANCES, "a layer whose sketch has signs and buckets that are drawn once, at import")
def signs_of_the_import(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _SignsOfTheImport.apply(x, weight, bias)


class Sketched(NamedTuple):
    """S [k, n] and S X."""

    normal: Tensor
    sketch: Tensor


@defect(
    VARIANCE,
    "a Gaussian sketch that states (‖X‖²‖Y‖² − ‖G‖²)/k for its variance; the sign of ‖G‖² is wrong",
)
@dataclass(frozen=True, repr=False)
class WrongSignSketch(Estimator):
    name: ClassVar[str] = "wrong_sign_sketch"
    traits: ClassVar[Traits] = Traits("sketch", True, False, False, False)
    size: int = 64

    def compress(self, x, *, scores=None, generator=None):
        check_matrix("x", x)
        sampling_scores(x, scores)
        normal = torch.randn(self.size, len(x), dtype=torch.float64, generator=generator) / self.size**0.5
        return Sketched(normal, (normal @ x.double()).to(x.dtype))

    def contract(self, saved, dy):
        check_rows_agree(saved.normal.T, dy)
        estimate = (saved.normal @ dy.double()).T @ saved.sketch.double()
        return estimate.to(torch.promote_types(saved.sketch.dtype, dy.dtype))

    def variance(self, x, dy, *, scores=None):
        x, dy = x.double(), dy.double()
        return (x.square().sum() * dy.square().sum() - (dy.T @ x).square().sum()) / self.size
