"""`ApproxLinear`: an `nn.Linear` with the same parameters and state dict whose dW is estimated.

What it adds is in `EstimatedWeightGrad`, which `ApproxConv1D` (`wtacrs.integration.layers.conv1d`) shares.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor, nn

from wtacrs.estimators import Estimator, make, row_norms
from wtacrs.integration.context.forward_pass import NOT_COMPILED, ForwardPass, Stream
from wtacrs.integration.context.padding import RowMasks
from wtacrs.integration.context.shared_inputs import Sample, can_share
from wtacrs.integration.layers.function import GradRowsHook, as_autocast, sampled_linear
from wtacrs.integration.score_memory.gradient_norms import GradientNorms

MIN_ELEMENTS = 16_384


class EstimatedWeightGrad(nn.Module):
    """What a linear layer gains by conversion: an estimator, what it knows of padding, and the choice of the exact path.

    The ordinary path is taken, and nothing beyond what it keeps is kept, in eval mode, without gradients, with a frozen
    weight, with the `exact` estimator, and for inputs of fewer than `min_elements` numbers, where sampling could save
    next to nothing.

    Attributes:
        stock: the class that the layer is of unless it is converted.
        flattened: whether an input `[batch · positions, d]` holds the tokens in their order.
    """

    stock: ClassVar[type[nn.Module]]
    weight: Tensor
    bias: Any
    estimator: Estimator
    min_elements: int
    row_masks: RowMasks | None = None
    stream: Stream | None = None
    flattened: bool = False
    path: str = ""
    gradient_norms: GradientNorms | None = None
    share_inputs: bool = False

    def forward_sampled(
        self, input: Float[Tensor, "*batch d"], weight: Float[Tensor, "m d"]
    ) -> Float[Tensor, "*batch m"]:
        """The forward of a layer that `samples`, by its weight as `[m, d]`."""
        current = self._known_pass(input)
        if current is None:
            return sampled_linear(input, weight, self.bias, self.estimator, scores=self.scores_of(input))
        return self._forward_within(current, input, weight)

    def _known_pass(self, x: Tensor) -> ForwardPass | None:
        """The forward pass to draw in; None for compiled code and wrapped tensors, which draw as they come."""
        compiled = torch.compiler.is_compiling() and self.gradient_norms is None
        current = None if compiled or self.row_masks is None else self.row_masks.current
        return None if current is None or current.seed is None or not can_share(x) else current

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _forward_within(
        self, current: ForwardPass, input: Float[Tensor, "*batch d"], weight: Float[Tensor, "m d"]
    ) -> Float[Tensor, "*batch m"]:
        """The forward of a layer that knows its forward pass: one sample for all layers that read the input."""
        x = as_autocast(input)
        shares, terms = self._shares(current), self._terms(x)
        sample = current.shared.find(input, terms) if shares else None
        if sample is None:
            generator = current.generator(self.path, x.device)
            with torch.no_grad():
                rows = x.detach().reshape(-1, x.shape[-1])
                kept = self.estimator.compress(rows, scores=self.scores_of(input), generator=generator)
            sample = Sample(kept, self.path)
            if shares:
                current.shared.add(input, terms, sample)
        watch = self._watch(current, sample.leader, input)
        return sampled_linear(x, weight, self.bias, self.estimator, kept=sample.kept, watch=watch)

    def finds_shared(self, x: Tensor) -> bool:
        """Whether another layer has kept a copy of this very input already, which this one would share."""
        current = self._known_pass(x)
        if current is None or not self._shares(current):
            return False
        return current.shared.find(x, self._terms(as_autocast(x))) is not None

    def _shares(self, current: ForwardPass) -> bool:
        return self.share_inputs and current.known

    def _terms(self, x: Tensor) -> tuple[object, ...]:
        """What must be equal, besides the input, for layers to keep one copy; x as autocast makes it."""
        return self.estimator, self.stream, x.dtype

    def _watch(self, current: ForwardPass, leader: str, x: Tensor) -> GradRowsHook | None:
        if self.gradient_norms is None or not current.known:
            return None
        return self.gradient_norms.watcher(current, leader, self.stream, self._by_example(current, x).shape[:-1])

    def _by_example(self, current: ForwardPass, x: Tensor) -> Tensor:
        return current.unflattened(self.stream, x) if self.flattened else x

    def scores_of(self, x: Float[Tensor, "*batch d"]) -> Float64[Tensor, " n"] | None:
        """The scores that an input is sampled by, 0 at padding; None (row norms) where no mask fits.

        They are the row norms, times what `gradient_norms` expects of dY if there are any.
        """
        current = None if self.row_masks is None else self.row_masks.current
        if current is None:
            return None
        x = self._by_example(current, x)
        if self.gradient_norms is not None and current.known:
            return self.gradient_norms.scores(current, self.path, self.stream, x)
        mask = current.mask(self.stream, x.shape[:-1])
        return None if mask is None else row_norms(x.reshape(-1, x.shape[-1])) * mask.reshape(-1)

    def samples(self, x: Tensor) -> bool:
        """Whether dW would be estimated for this input, rather than the ordinary path taken."""
        return (
            self.training
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and self.estimator.traits.family != "exact"
            and x.numel() >= max(self.min_elements, 1)
        )


class ApproxLinear(EstimatedWeightGrad, nn.Linear):
    """Linear layer with an exact output, exact dX and db, and dW estimated from a compressed input.

    When the path of `nn.Linear` is taken instead, `EstimatedWeightGrad` tells.

    Args:
        in_features: d.
        out_features: m.
        bias: whether there is a bias.
        estimator: a spec such as `"wta_crs(budget=0.3)"` or an `Estimator`.
        min_elements: inputs with fewer numbers than this take the exact path.
        device: as in `nn.Linear`.
        dtype: as in `nn.Linear`.

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
        self.estimator = make(estimator)
        self.min_elements = min_elements

    def forward(self, input: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """As `nn.Linear.forward`."""
        if not self.samples(input):
            return F.linear(input, self.weight, self.bias)
        return self.forward_sampled(input, self.weight)

    def extra_repr(self) -> str:
        """The layer's own description and the spec of its estimator."""
        return f"{super().extra_repr()}, estimator={self.estimator!r}"
