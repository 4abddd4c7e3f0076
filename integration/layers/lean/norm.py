"""RMS norm and LayerNorm that keep their input and one number per row; nobody keeps their output."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.derivatives import first_derivative_only
from wtacrs.integration.layers.lean.recipes import Owned, register

Cast = Literal["weight", "input", "late"]
"""Where a module rounds to half precision, h being the normalised input in fp32. `weight`: h is cast to the dtype of a
half weight, then scaled (T5). `input`: h is cast to the input's dtype, then scaled (Llama). `late`: h is scaled in fp32
and the product cast to the input's dtype (Gemma, `nn.RMSNorm`)."""


class RMSTerms(NamedTuple):
    """What was found of an RMS norm.

    Attributes:
        weight: name of the parameter.
        eps: added to the mean square; None for the machine epsilon of the dtype that is computed in.
        offset: 1 where the scale is 1 + weight, else 0.
        cast: where it rounds.
        double: whether it computes in fp64 for input in fp64.
    """

    weight: str
    eps: float | None
    offset: float
    cast: Cast
    double: bool

    def describe(self) -> str:
        """In a few words."""
        scale = f"1 + {self.weight}" if self.offset else self.weight
        return f"RMS norm, scale {scale}, eps {'of the dtype' if self.eps is None else f'{self.eps:g}'}"


def _work(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def reciprocal_rms(x: Float[Tensor, "*rows d"], eps: float | None) -> Float[Tensor, "*rows 1"]:
    """`1 / sqrt(mean x² + eps)` of every row, in fp32, or in fp64 for fp64."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    added = torch.finfo(wide).eps if eps is None else eps
    return norm.square_().div_(x.shape[-1]).add_(added).rsqrt_()


def scaled(
    x: Float[Tensor, "*rows d"], rstd: Float[Tensor, "*rows 1"], weight: Float[Tensor, " d"], terms: RMSTerms
) -> Float[Tensor, "*rows d"]:
    """The output of the norm, rounded where the stock module rounds."""
    normed = _work(x) * rstd
    if terms.cast == "late":
        scale = _work(weight)
        return normed.mul_(scale + terms.offset if terms.offset else scale).to(x.dtype)
    if terms.cast == "input":
        normed = normed.to(x.dtype)
    elif weight.dtype in (torch.float16, torch.bfloat16):
        normed = normed.to(weight.dtype)
    scale = weight + terms.offset if terms.offset else weight
    return normed.mul_(scale) if torch.result_type(normed, scale) == normed.dtype else normed * scale


class RMSNorm(torch.autograd.Function):
    """`y = s ⊙ x r` row by row, with `r = (mean x² + eps)^(-1/2)` and s = weight or 1 + weight.

    Kept are x, r and the weight. Gradient: let g = s ⊙ dy and x̂ = x r. From ∂r/∂x_j = −r³ x_j / d,

        dx = r g − (r³/d) (Σ_i g_i x_i) x = r (g − x̂ · mean(g ⊙ x̂)),      ds = Σ_rows dy ⊙ x̂.

    The fused backward kernel of LayerNorm, for a mean μ and the reciprocal deviation r, returns with x̂ = (x − μ) r

        dx' = r (g − mean(g) − x̂ · mean(g ⊙ x̂)),      ds' = Σ_rows dy ⊙ x̂,

    an identity in x, μ and r, which does not ask that μ be the mean of x. With μ = 0 therefore ds = ds' and
    dx = dx' + r mean(g): the term that LayerNorm has for its mean is put back, at the cost of one product dy · s.

    The backward pass computes in fp32 for half precision (fp64 for fp64), and rounds once.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*rows d"], weight: Float[Tensor, " d"], terms: RMSTerms
    ) -> Float[Tensor, "*rows d"]:
        """The stock module's output, to rounding."""
        rstd = reciprocal_rms(x, terms.eps)
        ctx.offset = terms.offset
        ctx.save_for_backward(x, rstd, weight)
        return scaled(x, rstd, weight, terms)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*rows d"]) -> tuple[Tensor | None, ...]:
        """As the class says."""
        kept, rstd, weight = ctx.saved_tensors
        needs_dx, needs_dw = ctx.needs_input_grad[:2]
        d = kept.shape[-1]
        dy, x, scale = (_like(t, rstd) for t in (dy.reshape(-1, d), kept.reshape(-1, d), weight))
        scale = scale + ctx.offset if ctx.offset else scale
        rstd = rstd.reshape(-1, 1)
        dx, dw, _ = torch.ops.aten.native_layer_norm_backward(
            dy, x, (d,), torch.zeros_like(rstd), rstd, scale, None, [needs_dx, needs_dw, False]
        )
        if needs_dx:
            with torch.autocast(dy.device.type, enabled=False):
                dx.add_(torch.mv(dy, scale).unsqueeze_(1).mul_(rstd).div_(d))
            dx = dx.view(kept.shape).to(kept.dtype)
        return dx, dw.to(weight.dtype) if needs_dw else None, None


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    return tensor.to(other.dtype).contiguous()


def rms_again(x: Tensor, weight: Tensor, terms: RMSTerms) -> Tensor:
    """The output of an RMS norm from what it keeps."""
    return scaled(x, reciprocal_rms(x, terms.eps), weight, terms)


def rms_norm(
    x: Float[Tensor, "*rows d"], weight: Float[Tensor, " d"], terms: RMSTerms
) -> Float[Tensor, "*rows d"]:
    """An RMS norm that keeps its input, and whose output has a recipe."""
    y = RMSNorm.apply(x, weight, terms)
    if x.requires_grad or weight.requires_grad:
        register(y, rms_again, x, Owned(weight.detach().clone()), terms)
    return y


class LeanRMSNorm(LeanModule):
    """An RMS norm of whatever class. In fp64 a module that computes in fp32 all the same runs its own forward."""

    lean_terms: RMSTerms

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As that of the stock class."""
        x = args[0] if len(args) == 1 and not kwargs else None
        weight = self._parameters.get(self.lean_terms.weight)
        if x is None or weight is None or not self.is_lean(x) or x.shape[-1:] != weight.shape:
            return self.stock.forward(self, *args, **kwargs)
        if torch.float64 in (x.dtype, weight.dtype) and not (self.lean_terms.double and x.dtype == weight.dtype):
            return self.stock.forward(self, *args, **kwargs)
        return rms_norm(x, weight, self.lean_terms)


class LeanLayerNorm(LeanModule):
    """`nn.LayerNorm`: its kernel keeps the input and two numbers per row already; new is the recipe of its output."""

    normalized_shape: tuple[int, ...]
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.LayerNorm.forward`."""
        y = self.stock.forward(self, input)
        # where autocast casts the input, the cast is kept and not the input
        if self.is_lean(input) and y.dtype == input.dtype and self._keeps(input):
            weight, bias = (None if t is None else Owned(t.detach().clone()) for t in (self.weight, self.bias))
            register(y, F.layer_norm, input, self.normalized_shape, weight, bias, self.eps)
        return y

    def _keeps(self, x: Tensor) -> bool:
        return x.requires_grad or (self.weight is not None and self.weight.requires_grad)
