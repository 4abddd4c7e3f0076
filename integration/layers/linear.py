"""`ApproxLinear`: an `nn.Linear` with the same parameters and state dict whose dW is estimated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wtacrs.estimators import Estimator
from wtacrs.integration.layers.choice import made_of_argument
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS, EstimatedWeightGrad
from wtacrs.integration.layers.lean.linear import lean_linear, note_product
from wtacrs.integration.layers.least_elements import checked_min_elements


class ApproxLinear(EstimatedWeightGrad, nn.Linear):
    """Linear layer with an exact output, exact dX and db, and dW estimated from a compressed input.

    `EstimatedWeightGrad` says when the path of `nn.Linear` is taken instead.

    Args:
        in_features: d.
        out_features: m.
        bias: whether there is a bias.
        estimator: a spec such as `"wta_crs(budget=0.3)"` or an `Estimator`.
        min_elements: inputs with fewer numbers than this take the exact path; an integer from 0.
        device: as in `nn.Linear`.
        dtype: as in `nn.Linear`.

    Raises:
        InputError: on an unusable spec, or if `min_elements` is no integer from 0.

    >>> layer = ApproxLinear(64, 8, estimator="wta_crs(budget=0.3)", min_elements=0)
    >>> layer(torch.randn(2, 50, 64)).sum().backward()
    >>> layer.weight.grad.shape
    torch.Size([8, 64])
    """

    stock = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        estimator: str | Estimator,
        min_elements: int = MIN_ELEMENTS,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias, device=device, dtype=dtype)
        self.estimator = made_of_argument(estimator)
        self.min_elements = checked_min_elements(min_elements)

    def forward(self, input: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """As `nn.Linear.forward`."""
        self.note_call()
        if not self.samples(input):
            y = lean_linear(input, self.weight, self.bias) if self.takes_recipes() else None
            y = F.linear(input, self.weight, self.bias) if y is None else y
            kept = True
        else:
            y, kept = self.forward_sampled(input, self.weight), False
        if self.takes_recipes():
            note_product(self, y, input, kept=kept)
        return y

    def extra_repr(self) -> str:
        """The layer's own description and the spec of its estimator."""
        return f"{super().extra_repr()}, estimator={self.estimator!r}"
