"""`ApproxConv1D`: the linear layer of GPT-2, with the same parameters and state dict, whose dW is estimated.

The module needs transformers; `wtacrs.integration.layers.convert` imports it where a model holds a `Conv1D`.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from wtacrs.estimators import Estimator, make
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS, EstimatedWeightGrad
from wtacrs.integration.layers.lean.linear import lean_linear, note_product, transposed_linear
from wtacrs.integration.layers.least_elements import checked_min_elements


class ApproxConv1D(EstimatedWeightGrad, Conv1D):
    """`Conv1D` of transformers, `x @ weight + bias` with `weight [d, m]`, with dW `[d, m]` estimated.

    The estimate is that of `ApproxLinear` for the transposed weight; autograd transposes it back. In everything else it
    is as `EstimatedWeightGrad` says.

    Args:
        nf: m, the features written.
        nx: d, the features read.
        estimator: a spec such as `"wta_crs(budget=0.3)"` or an `Estimator`.
        min_elements: inputs with fewer numbers than this take the exact path; an integer from 0.

    >>> import torch
    >>> layer = ApproxConv1D(8, 64, estimator="wta_crs(budget=0.3)", min_elements=0)
    >>> layer(torch.randn(2, 50, 64)).sum().backward()
    >>> layer.weight.grad.shape
    torch.Size([64, 8])
    """

    stock = Conv1D

    def __init__(self, nf: int, nx: int, *, estimator: str | Estimator, min_elements: int = MIN_ELEMENTS) -> None:
        super().__init__(nf, nx)
        self.estimator = make(estimator)
        self.min_elements = checked_min_elements(min_elements)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """As `Conv1D.forward`."""
        self.note_call()
        if not self.samples(x):
            y = lean_linear(x, self.weight.t(), self.bias) if self.takes_recipes() else None
            y = Conv1D.forward(self, x) if y is None else y
            kept = True
        else:
            y, kept = self.forward_sampled(x, self.weight.t()), False
        if self.takes_recipes():
            note_product(self, y, x, kept=kept, run=transposed_linear)
        return y

    def __repr__(self) -> str:
        return f"ApproxConv1D(nf={self.nf}, nx={self.nx}, estimator={self.estimator!r})"
