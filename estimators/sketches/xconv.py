"""`xconv`: the tokens of every sample probed by a few random vectors, the same for all samples; rebuilt from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.base import Published
from wtacrs.estimators.core.checks import check_choice, check_rows_agree
from wtacrs.estimators.core.counter_rng import Source
from wtacrs.estimators.core.products import double_product
from wtacrs.estimators.core.registry import register
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.seeded import mask_rows, operator_blocks
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.estimators.sketches.samples import check_tokens, in_samples
from wtacrs.estimators.sketches.sketch import ENTRIES, Sketch

PROBES = ("gaussian", "orthogonal")


@register("xconv")
@dataclass(frozen=True, repr=False)
class XConv(Sketch):
    """Randomised trace estimation: `Ĝ = Σ_s (Zᵀ dY_s)ᵀ (Zᵀ X_s)`, one `Z [t, k]` of k probes for all samples s.

    The rows are cut into samples of t tokens, in their order. An entry of dW is a trace, `G_ab = Σ_s tr(X_s e_b e_aᵀ
    dY_sᵀ)`, and `tr A = E zᵀAz` for every random z with `E zzᵀ = 1`. With one sample and normal probes this is
    `gaussian_sketch`, number by number. Several samples keep k rows each: no two samples mix, but all share their probes.

    Source: Thatipelli, Sam, Louboutin, Siahkoohi, Wang & Herrmann, "XConv: Low-memory stochastic backpropagation for
    convolutional layers", 2021 (arXiv 2106.06998), for a convolution of one by one pixel, its pixels being the tokens:
    the form that probes every channel by itself, with normal probes. The other form probes pixels and channels together;
    for samples of one token it is `random_projection` with normal entries, some of them set to zero. Orthogonal probes of
    the features are `prac(principal=0)`.

    Mean: normal probes have variance 1/k, so that `E ZZᵀ = 1`. Orthogonal ones are √(t/k) times k orthonormal columns
    that span a uniformly random subspace: by symmetry `E ZZᵀ` is a multiple of 1, and its trace is t. Either way
    `EĜ = Σ_s dY_sᵀ E(ZZᵀ) X_s = G`.

    Variance: let `N = dY_s dY_s'ᵀ` and `M = X_s X_s'ᵀ` for two samples, and sum over all pairs of them,

        A = Σ tr N tr M,      B = Σ tr(N M),      Σ tr(N Mᵀ) = ‖G‖².

    For normal z `E zᵀNz zᵀMz = tr N tr M + tr(N M) + tr(N Mᵀ)`, and the k probes are independent, so that

        Var Ĝ = (A + B)/k                                                    (normal).

    For a random projection P of rank k, `E P_ij P_lm = α δ_ij δ_lm + β (δ_il δ_jm + δ_im δ_jl)` by symmetry, and
    `(tr P)² = k²`, `tr P² = k` give `β = k (t − k)/(t (t − 1)(t + 2))` and `α = (k² − 2 β t)/t²`. Hence

        Var Ĝ = (t − k)/(k (t − 1)(t + 2)) · (t (A + B) − 2‖G‖²)             (orthogonal),

    which is 0 for k = t. With one sample A = ‖X‖²‖dY‖² and B = ‖G‖². Probes that are shared do not average out over
    samples: A is largest, `(Σ_s ‖X_s‖‖dY_s‖)²`, where all samples are alike.

    Bytes: k rows for every sample + 12, and n/8 for the bits of the support. MACs: `b·k·(t·d + t·m + d·m)` for b samples,
    beside a QR decomposition of `t × k` for each of both sketches if probes are orthogonal.

    Args:
        budget: float in (0, 1], the probes as a fraction of the tokens of a sample, or int ≥ 1, their number.
        tokens: rows t of a sample; None for all rows as one sample. A last, shorter sample is filled up with zeros.
        probes: "gaussian" or "orthogonal".

    >>> import torch
    >>> x, dy = torch.randn(12, 5), torch.randn(12, 3)
    >>> whole = XConv(budget=1.0, tokens=4, probes="orthogonal")
    >>> bool(torch.allclose(whole.contract(whole.compress(x), dy), dy.T @ x, atol=1e-4))
    True
    """

    tokens: int | None = None
    probes: str = "gaussian"

    published: ClassVar[Published] = Published("Thatipelli et al. 2021, arXiv 2106.06998", unbiased=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tokens(self.tokens, self.name)
        check_choice("probes", self.probes, PROBES, self.name)

    def unlisted(self) -> str | None:
        """Those of orthogonal probes are all subspaces."""
        if self.probes == "gaussian":
            return None
        return f"{self!r}: a random subspace has no finite list of outcomes"

    def apply(self, matrix: Float[Tensor, "n c"], k: int, source: Source) -> Float[Tensor, "bk c"]:
        """`Zᵀ` times every sample; the probes are counted by the tokens of a sample, not by k, the rows of the sketch."""
        if not matrix.shape[0]:
            return matrix
        samples = in_samples(matrix, self.tokens)
        count, tokens, columns = samples.shape
        probes = rows_for(self.budget, tokens)
        total = matrix.new_zeros((count, probes, columns))
        if self.probes == "orthogonal":
            found = self._orthonormal(tokens, probes, source, matrix)
            total = found.T @ samples * tokens**0.5
        else:
            for rows, block in operator_blocks("gaussian", source, ENTRIES, tokens, probes, matrix):
                total = total + block.T @ samples[:, rows]
        return total.reshape(count * probes, columns) / probes**0.5

    def macs(self, n: int, d: int, m: int) -> int:
        """`b·k·t·(d + m)` for both sketches, `b·k·d·m` for their product."""
        if not n:
            return 0
        tokens = self.tokens or n
        kept = -(-n // tokens) * rows_for(self.budget, tokens)
        return kept * tokens * (d + m) + kept * d * m

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """As derived above, over the rows of positive score; O(n² (d + m)) time for more than one sample."""
        check_rows_agree(x, dy)
        support = sampling_scores(x, scores) > 0
        size = double_product(x, dy, support).square().sum()
        if not x.shape[0]:
            return size
        left, right = (in_samples(mask_rows(a, support), self.tokens) for a in (dy, x))
        tokens = left.shape[1]
        k = rows_for(self.budget, tokens)
        both = _traces(left, right) + (size if left.shape[0] == 1 else _crossed(left, right))
        if self.probes == "gaussian":
            return (both / k).clamp(min=0.0)
        if k == tokens:
            return torch.zeros_like(size)
        factor = (tokens - k) / (k * (tokens - 1) * (tokens + 2))
        return (factor * (tokens * both - 2 * size)).clamp(min=0.0)

    def _orthonormal(self, tokens: int, count: int, source: Source, like: Tensor) -> Float[Tensor, "t k"]:
        blocks = [block for _, block in operator_blocks("gaussian", source, ENTRIES, tokens, count, like)]
        return torch.linalg.qr(torch.cat(blocks))[0]


def _traces(dy: Float[Tensor, "b t m"], x: Float[Tensor, "b t d"]) -> Float64[Tensor, ""]:
    """`Σ tr(dY_s dY_s'ᵀ) tr(X_s X_s'ᵀ)`."""
    outputs, inputs = (double_product(a.reshape(len(a), -1).T, a.reshape(len(a), -1).T) for a in (dy, x))
    return (outputs * inputs).sum()


def _crossed(dy: Float[Tensor, "b t m"], x: Float[Tensor, "b t d"]) -> Float64[Tensor, ""]:
    """`Σ tr(dY_s dY_s'ᵀ X_s X_s'ᵀ)`, a pair of samples at a time."""
    total = dy.new_zeros((), dtype=torch.float64)
    for first in range(dy.shape[0]):
        for second in range(dy.shape[0]):
            outputs = dy[first].double() @ dy[second].double().T
            inputs = x[first].double() @ x[second].double().T
            total = total + (outputs * inputs.T).sum()
    return total
